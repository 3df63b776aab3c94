"""The supervisor's side of its engine: a child process, started, spoken to, watched, killed and replaced.

Engines are forked from a server process that has the libraries imported and nothing else: importing them
takes many times as long as loading a model, and CUDA must not be touched before a fork. The supervisor itself
imports none of them and cannot be taken down by them.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, cast

import redis

from contracts.jobs import JobError
from contracts.tracing import current
from workers.berths import Berths
from workers.hold import away
from workers.messages import Asking, Ending, Heed, Loaded, Order, Ready, Refused, Run, Spec, Stage

POLL = 0.05
"""Seconds between two looks at what the engine and the job's record say."""
KILL_SECONDS = 20.0
"""How long a killed engine may take to be gone: one that waits for a broken device may take for ever."""
USUAL_STEPS = 10
"""A step is hung when it takes so many times as long as the job's usual one."""
log = logging.getLogger(__name__)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["workers.preload"])


class ToldToStopError(Exception):
    """This worker must end, so no engine is started."""


class EngineStartError(Exception):
    """The engine ended before it could run jobs."""


class EngineRefusedError(EngineStartError):
    """The model cannot be loaded, and trying again would not help."""


Program = Callable[["Connection[Any, Any]", Spec], None]


@dataclass
class Watch:
    """Tells a hung step from a slow one.

    Args:
        least: seconds that any step may take.
    """

    least: float
    usual: float = 0.0
    since: float = field(default_factory=time.monotonic)

    @property
    def hung(self) -> bool:
        """Whether the present step takes far too long."""
        return time.monotonic() - self.since > max(self.least, USUAL_STEPS * self.usual)

    def step(self) -> None:
        """Note that a step has ended."""
        took = time.monotonic() - self.since
        self.usual = max(took, 0.8 * self.usual + 0.2 * took)  # a round has short steps and long ones
        self.excuse()

    def excuse(self) -> None:
        """Let the present step begin anew."""
        self.since = time.monotonic()


@dataclass
class Grace:
    """Tells an order that is not heeded in time.

    A cancel asks for the result: while that is made, or what it takes is loaded, it is heeded. Whoever stops
    a worker waits for nothing.

    Args:
        seconds: that it may take.
    """

    seconds: float
    order: Order | None = None
    stage: Stage = Stage.LOADING
    since: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the order has not been heeded for too long."""
        if self.order is None or (self.order is Order.CANCEL and self.stage is not Stage.SEARCHING):
            return False
        return time.monotonic() - self.since > self.seconds

    def give(self, order: Order) -> None:
        """Note that an order was given."""
        self.order, self.since = order, time.monotonic()

    def enter(self, stage: Stage) -> None:
        """Note what the job has come to."""
        self.stage = stage
        if self.order is Order.CANCEL:
            self.since = time.monotonic()


@dataclass
class Resident:
    """The engine process, one at a time.

    Args:
        spec: what it is started with.
        stopping: set when this worker must end.
        program: what the process does.
        berths: of the device, where workers share it; None: nobody asks this one to leave.

    Attributes:
        hung_in: the reward that the latest `run` waited for in vain; None where it hung in none.
    """

    spec: Spec
    stopping: threading.Event
    program: "Program | None" = None
    berths: Berths | None = None
    hung_in: str | None = None
    _process: ForkServerProcess | None = None
    _pipe: "Connection[Any, Any] | None" = None

    @property
    def pid(self) -> int | None:
        """The process id of the engine, None where there is none."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the engine runs."""
        return self._process is not None and self._process.is_alive()

    def start(
        self, loaded: Callable[[], None] = lambda: None, meanwhile: Callable[[], None] = lambda: None
    ) -> str:
        """Start an engine, once there is room on the device, and wait until it can run jobs.

        Args:
            loaded: called when its model is loaded, and not warm yet.
            meanwhile: called again and again until then.

        Returns:
            The name of its device.

        Raises:
            EngineRefusedError: the model cannot be loaded.
            EngineStartError: the engine ended or hangs.
            ToldToStopError: this worker must end.
        """
        self.kill()
        if self.berths and not self.berths.board(self.stopping, meanwhile):
            raise ToldToStopError
        pipe = self._fork()
        doing = "loads its model"
        while isinstance(message := self._heard(pipe, doing, meanwhile), Loaded | Asking):
            doing = "warms up"
            if isinstance(message, Loaded):
                loaded()
            elif message.reward:
                doing += f" and waits for reward '{message.reward}'"
        if isinstance(message, Ready):
            log.info("engine %d is ready on %s", self.pid, message.device)
            self._note(busy=False, size=message.memory)
            self.spec = replace(self.spec, hashes=message.hashes)
            return message.device
        self.kill()
        raise EngineRefusedError(message.reason if isinstance(message, Refused) else str(message))

    def _fork(self) -> "Connection[Any, Any]":
        """Have the process; our end of the pipe to it. Returns once the libraries are imported."""
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=self.program or run_engine, args=(theirs, self.spec), daemon=True)
        try:
            process.start()
        except (EOFError, OSError) as error:
            ours.close()
            raise self._not_started("the process that engines are forked from has ended") from error
        finally:
            theirs.close()
        self._process, self._pipe = process, cast("Connection[Any, Any]", ours)
        return self._pipe

    def _not_started(self, why: str) -> Exception:
        """What to raise where there is no engine: a signal to all of a worker's processes is no trouble."""
        return ToldToStopError() if self.stopping.is_set() else EngineStartError(why)

    def _heard(self, pipe: "Connection[Any, Any]", doing: str, meanwhile: Callable[[], None]) -> object:
        """What a starting engine says next."""
        watch = Watch(self.spec.worker_settings.start_seconds)
        while not pipe.poll(POLL):
            if self.stopping.is_set():
                self.kill()
                raise ToldToStopError
            if watch.hung:
                self.kill()
                raise EngineStartError(
                    f"the engine gave no sign of life for {watch.least:g} s while it {doing}: "
                    "raise ROLLOVER_START_SECONDS where it is only slow"
                )
            meanwhile()
        try:
            return pipe.recv()
        except (EOFError, OSError) as error:
            raise self._not_started(f"the engine ended while it loaded: {self._death()}") from error

    def run(self, job_id: str, look: Callable[[Stage], Order | None], lost: JobError | None = None) -> Ending:
        """Run a job on the engine until it ends, is given back, or the engine is lost.

        Args:
            job_id: the job.
            look: told what the job has come to, what its record and this worker want of it; may raise redis'
                errors.
            lost: see `Run`.
        """
        assert self._pipe is not None  # noqa: S101 -- `start` comes first
        watch = Watch(self.spec.worker_settings.hang_seconds)
        grace = Grace(self.spec.worker_settings.grace_seconds)
        asked: str | None = None
        self.hung_in = None
        self._note(busy=True)
        try:
            self._pipe.send(Run(job_id, current(), lost))
            while True:
                if self._pipe.poll(POLL):
                    message = self._pipe.recv()
                    if isinstance(message, Ending):
                        return message
                    if isinstance(message, Asking):
                        asked = message.reward
                    elif isinstance(message, Stage):
                        grace.enter(message)
                    else:
                        watch.step()
                wanted = self._look(partial(look, grace.stage), watch)
                if wanted and wanted is not grace.order:
                    self._pipe.send(Heed(job_id, wanted))
                    grace.give(wanted)
                if grace.over:
                    return self._give_up(job_id, "it did not end in time")
                if watch.hung:
                    self.hung_in = asked
                    return self._give_up(job_id, f"it hangs in reward '{asked}'" if asked else "it hangs")
        except (EOFError, OSError):
            log.warning("the engine was lost while it ran %s: %s", job_id, self._death())
            self.kill()
            return Ending.LOST
        finally:
            self._note(busy=False)

    def kill(self) -> None:
        """End the engine now, if there is one, and wait until its memory is free, or `KILL_SECONDS`."""
        if self._process is not None:
            self._process.kill()
            self._process.join(KILL_SECONDS)
            if self._process.is_alive():
                log.error("engine %d does not end, killed as it is: its device may be broken", self.pid)
            else:
                self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        if self.berths:
            self.berths.leave()

    def make_room(self) -> bool:
        """End the engine where another worker needs its room on the device; whether it did."""
        if not (self.alive and self.berths and self.berths.wanted):
            return False
        log.info("the model leaves the device for another worker's")
        self.kill()
        return True

    def _note(self, *, busy: bool, size: int | None = None) -> None:
        if self.berths:
            self.berths.note(busy=busy, size=size)

    def _look(self, look: Callable[[], Order | None], watch: Watch) -> Order | None:
        try:
            return look()
        except redis.RedisError as error:
            if not away(error):
                raise
            watch.excuse()  # the engine may be waiting for Redis, too
            return None

    def _give_up(self, job_id: str, why: str) -> Ending:
        log.warning("the engine is killed while it runs %s: %s", job_id, why)
        self.kill()
        return Ending.LOST

    def _death(self) -> str:
        """How the engine ended."""
        if self._process is None:
            return "there is none"
        self._process.join(timeout=1.0)
        code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def run_engine(pipe: "Connection[Any, Any]", spec: Spec) -> None:
    """What the child process does; only there is torch imported."""
    from workers.engine_process import main  # noqa: PLC0415

    main(pipe, spec)
    os._exit(0)  # not through the exit handlers of libraries, which may hang after a fault
