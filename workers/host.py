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
        return min(free, int(limit) - int(used)), min(total, int(limit))
    return free, total


def text(file: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
