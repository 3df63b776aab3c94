"""Whose models lie on a device that the workers of a machine share: the least recently used leave for others.

Each worker whose engine lives holds a lock on a file of its own, which says how much its model takes and when
it was last used. The kernel lets go of the lock however the worker ends, so nobody waits for the dead. A
worker that needs room asks others to leave by a file beside theirs; they do when they have no job.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Self

from contracts.settings import Settings
from workers.settings import WorkerSettings

PAUSE = 0.1
"""Seconds between two looks for room."""
GIB = 1 << 30


@dataclass(frozen=True)
class Guest:
    """A model on the device.

    Args:
        notice: the file by which it is asked to leave.
        size: bytes it takes; None: not known yet, and taken for all there are.
        used: when its last job ended, by the clock that all processes of a machine share.
        busy: whether it runs a job, or is being loaded.
    """

    notice: Path
    size: int | None
    used: float
    busy: bool

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Who leaves first: those that were asked already, then the idle, then the least recently used."""
        return not self.notice.exists(), self.busy, self.used


class Berths:
    """One worker's view of a device.

    Args:
        folder: of the device; workers that name the same share it.
        worker: this worker's name.
        limit: bytes that the models may take together; one that is larger lies there alone.

    Attributes:
        size: bytes that this worker's model takes; None: not known yet.
    """

    def __init__(self, folder: Path, worker: str, limit: int) -> None:
        self.limit = limit
        self._file, self._notice = folder / f"{worker}.berth", folder / f"{worker}.leave"
        self._lock: IO[str] | None = None
        self.size: int | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, device: str, worker: str, settings: Settings, own: WorkerSettings) -> Self | None:
        """Those of a device by its name; None: models stay, whoever else comes."""
        if own.shared_gib is None:
            return None
        return cls(
            settings.data_dir / "devices" / device.replace(":", "-"), worker, round(own.shared_gib * GIB)
        )

    @property
    def wanted(self) -> bool:
        """Whether another worker needs the room that this one's model takes."""
        return self._lock is not None and self._notice.exists()

    def board(self, stopping: Event, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Wait until there is room, asking others to leave; False: this worker must stop.

        Args:
            stopping: set when this worker must stop.
            meanwhile: called again and again until then.
        """
        while not self.enter():
            if stopping.wait(PAUSE):
                return False
            meanwhile()
        return True

    def enter(self) -> bool:
        """Take the room that there is; where it is too little, ask others to leave."""
        with self._alone():
            others = sorted(self._others(), key=lambda guest: guest.rank)
            free = self.limit - sum(self._taken(guest.size) for guest in others)
            need = self._taken(self.size)
            if need <= free or not others:
                self._lock = locked(self._file)
                self._write(busy=True)
                return True
            for guest in others:
                if need <= free:
                    break
                guest.notice.touch()
                free += self._taken(guest.size)
        return False

    def note(self, *, busy: bool, size: int | None = None) -> None:
        """Say whether the model runs a job, and what it has been found to take, in bytes."""
        if self._lock is None:
            return
        self.size = size or self.size
        with self._alone():
            self._write(busy=busy)

    def leave(self) -> None:
        """Give the room back."""
        if self._lock is None:
            return
        with self._alone():
            self._forget(self._file)
        self._lock.close()
        self._lock = None

    def _taken(self, size: int | None) -> int:
        return self.limit if size is None else size

    def _write(self, *, busy: bool) -> None:
        assert self._lock is not None  # noqa: S101 -- only who is there writes
        self._lock.seek(0)
        self._lock.truncate()
        json.dump({"size": self.size, "used": time.monotonic(), "busy": busy}, self._lock)
        self._lock.flush()

    def _others(self) -> Iterator[Guest]:
        for file in self._file.parent.glob("*.berth"):
            if file == self._file:
                continue
            if free := locked(file):
                self._forget(file)
                free.close()
            else:
                yield Guest(file.with_suffix(".leave"), **json.loads(file.read_text()))

    def _forget(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        file.with_suffix(".leave").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one worker at a time look and decide."""
        with (self._file.parent / "lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield


def locked(file: Path) -> IO[str] | None:
    """The file, locked; None: another process, or another owner in this one, has it."""
    opened = file.open("a+")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        return None
    return opened
