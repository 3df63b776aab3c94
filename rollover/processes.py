"""One child process: started in a group of its own, watched, and stopped with everything it started."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
TAIL_LINES = 15
LOG_BYTES = 16 * 2**20
"""Size of a log at which what it holds is moved to the file beside it."""


@dataclass(frozen=True)
class Command:
    """What to start. ``grace``: seconds it may take to end by itself after SIGTERM."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace: float


class Child:
    """A running :class:`Command`. Its output goes to the command's log file."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._started = time.monotonic()
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab") as log:
            self._log_start = log.tell()
            self._moved = False
            # A session of its own: Ctrl-C reaches only the supervisor, which stops the children in order.
            self._process = subprocess.Popen(
                command.arguments,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 -- the supervisor has one thread
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """End it: SIGTERM, the grace period, then SIGKILL for it and whatever it started."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.command.grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group, now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def last_lines(self) -> str:
        """The end of what it wrote since it was started."""
        written = self.command.log.read_bytes()[self._log_start :]
        if self._moved:
            written = self._older_log.read_bytes() + written
        return "\n".join(written.decode(errors="replace").splitlines()[-TAIL_LINES:])

    @property
    def _older_log(self) -> Path:
        return self.command.log.with_name(f"{self.command.log.name}.1")

    def shorten_log(self) -> None:
        """Move what a log of more than `LOG_BYTES` holds to the file beside it, in place of what is there.

        The child goes on writing into the same file, which it has open: each write is at the end, wherever
        that is now. A line that comes between the last read and the cut is lost.
        """
        log = self.command.log
        with contextlib.suppress(OSError):  # removed by somebody, or on a disk that fails: nothing to end for
            if log.stat().st_size <= LOG_BYTES:
                return
            # Where there is no room for two, there is for one: a disk that is full ends Valkey.
            with contextlib.suppress(OSError):
                self._moved = False
                with log.open("rb") as source, self._older_log.open("wb") as older:
                    source.seek(-LOG_BYTES, os.SEEK_END)
                    source.readline()  # the rest of a line
                    shutil.copyfileobj(source, older)
                self._moved = True
            os.truncate(log, 0)
            self._log_start = 0


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, what makes a child end when the supervisor is killed and cannot stop it; None elsewhere."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_kernel
