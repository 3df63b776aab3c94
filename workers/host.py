"""The memory of this machine that processes share."""

from pathlib import Path

MEMORY = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def host_memory() -> tuple[int, int]:
    """Bytes that could be had now, and all there are; a container's limit counts. 0 where it is not told."""
    told = dict(line.split(":") for line in text(MEMORY).splitlines() if ":" in line)
    free, total = (1024 * int(told.get(name, "0 kB").split()[0]) for name in ("MemAvailable", "MemTotal"))
    limit, used = text(CGROUP / "memory.max").strip(), text(CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        return min(free, int(limit) - int(used) + reclaimable()), min(total, int(limit))
    return free, total


def reclaimable() -> int:
    """Bytes of the container's that hold what was read from files, such as weights, until others need them.

    Active ones too, as the kernel does it for MemAvailable: what is read twice is active.
    """
    told = dict(line.split() for line in text(CGROUP / "memory.stat").splitlines())
    return sum(int(told.get(name, "0")) for name in ("inactive_file", "active_file"))


def text(file: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
