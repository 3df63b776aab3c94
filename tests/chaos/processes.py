"""Who has started whom, to kill the right one, and what a process may write."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    text = ""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            text += path.read_text()
    return [int(each) for each in text.split()]


def command_of(pid: int) -> str:
    """What a process was started as; empty where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def engine_of(worker: int) -> int | None:
    """The engine of a worker, the child of the server that engines are forked from; None without one."""
    for child in children(worker):
        if "forkserver" in command_of(child):
            return next(iter(children(child)), None)
    return None


@contextlib.contextmanager
def full_disk(pid: int = 0) -> Iterator[None]:
    """Have a process (0: this one) write no byte meanwhile, as root or not, on whatever disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have been killed meanwhile
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
