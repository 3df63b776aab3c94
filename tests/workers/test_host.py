"""The memory that a worker may count on, in a container and outside."""

from pathlib import Path

import pytest

from workers import host

GIB = 2**30
STAT = f"anon {2 * GIB}\nfile {9 * GIB}\nshmem {GIB}\ninactive_file {5 * GIB}\nactive_file {3 * GIB}\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 48 of 64 GiB to be had, and the folder of its control group, empty."""
    memory = tmp_path / "meminfo"
    memory.write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {48 * 2**20} kB\n")
    monkeypatch.setattr(host, "MEMORY", memory)
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("told", "free", "total"),
    [
        ({}, 48, 64),
        ({"memory.max": "max\n", "memory.current": str(11 * GIB)}, 48, 64),
        ({"memory.max": str(16 * GIB), "memory.current": str(11 * GIB)}, 5, 16),
        # What files were read lies in memory until it is needed: 5 and 3 GiB of the 11.
        ({"memory.max": str(16 * GIB), "memory.current": str(11 * GIB), "memory.stat": STAT}, 13, 16),
        ({"memory.max": str(60 * GIB), "memory.current": str(11 * GIB), "memory.stat": STAT}, 48, 60),
    ],
)
def test_a_containers_limit_counts_and_what_it_keeps_of_files_does_not(
    machine: Path, told: dict[str, str], free: int, total: int
) -> None:
    for name, text in told.items():
        (machine / name).write_text(text)
    assert host.host_memory() == (free * GIB, total * GIB)
