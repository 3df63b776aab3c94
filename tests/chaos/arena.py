"""The whole service with two workers, all of it real processes, and the hand that kills them."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest
from redis import Redis

from contracts.beats import WorkerBeat, WorkerState
from contracts.jobs import Record
from contracts.keys import WORKERS_KEY, job_key, totals_key, worker_key
from contracts.totals import Totals
from rollover import Client, RolloverError
from rollover.processes import Child, Command
from rollover.serve import Stack, StackSettings
from tests.chaos.clock import POSSIBLE, Clock
from tests.chaos.processes import engine_of, full_disk
from tests.chaos.receivers import SETTINGS, Receivers

PROMPT = "two red circles and a blue square"


@dataclass(frozen=True)
class Expected:
    """What a job must end with, whatever happens to it."""

    nfe: int
    sha256: str


@dataclass
class Arena:
    """`rollover serve` with a second worker; whatever is killed is started again.

    Each job is to post its end to one of three receivers.

    Args:
        folder: for its data; of short name.
        model: folder of the model; None: the bundled one.
    """

    folder: Path
    model: Path | None = None
    said: list[str] = field(default_factory=list[str])
    _ended: threading.Event = field(default_factory=threading.Event)
    receivers: Receivers = field(default_factory=Receivers)
    told: dict[str, str] = field(default_factory=dict[str, str])
    _second: Child | None = None

    def __enter__(self) -> Self:
        self.stack = Stack(StackSettings(port=0, data_dir=self.folder), self.said.append)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment().items():
                patch.setenv(name, value)
            self.stack.__enter__()
        self.receivers.__enter__()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._watch, self._watch_second)
        ]
        for thread in self._threads:
            thread.start()
        self.client = Client(self.stack.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.client.close()
        self.receivers.__exit__(None, None, None)
        self.stack.stop()

    def _environment(self) -> dict[str, str]:
        """What the processes of the stack find in their environment."""
        paths = {"ROLLOVER_MODEL_PATHS": f"shapes={self.model}"} if self.model else {}
        clock = self.clock.environment if POSSIBLE else {}
        return {"ROLLOVER_DEVICE": "cpu", "OMP_NUM_THREADS": "1", **SETTINGS, **paths, **clock}

    @property
    def clock(self) -> Clock:
        """The wall clock of all that is started here."""
        folder = self.folder / "clock"
        folder.mkdir(parents=True, exist_ok=True)
        return Clock(folder)

    def set_clock(self, seconds: int) -> bool:
        """Set the clock of all processes so far from the true one. Whether that is possible here."""
        if POSSIBLE:
            self.clock.set(seconds)
        return POSSIBLE

    def pids(self) -> dict[str, int]:
        """What can be killed, by name: `valkey`, `api`, `worker-1`, `engine-1` and so on."""
        found = {name: pid for name, pid in self.stack.pids.items() if name != "worker-shapes"}
        workers = [self.stack.pids["worker-shapes"], *([self._second.pid] if self._second else [])]
        for number, worker in enumerate(workers, 1):
            found[f"worker-{number}"] = worker
            if engine := engine_of(worker):
                found[f"engine-{number}"] = engine
        return found

    def kill(self, name: str) -> bool:
        """Kill -9. Whether there was one to kill."""
        pid = self.pids().get(name)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def ahead(self) -> float:
        """Seconds by which Redis' clock is ahead of the true one."""
        with Redis.from_url(self._redis_url) as redis:
            return float(cast("tuple[int, int]", redis.time())[0]) - time.time()

    def fill_disk(self, seconds: float) -> int:
        """Let the engines write nothing for a while, as on a full disk; how many there were."""
        engines = [pid for name, pid in self.pids().items() if name.startswith("engine")]
        with contextlib.ExitStack() as full:
            for pid in engines:
                with contextlib.suppress(ProcessLookupError):
                    full.enter_context(full_disk(pid))
            time.sleep(seconds)
        return len(engines)

    def submit(self, seed: int, nfe: int, priority: str = "normal") -> str:
        """Submit a job, however often that takes; its id. Asked again it is the same job."""
        key = f"{seed}-{nfe}-{time.monotonic_ns()}"
        webhook = {"url": next(self.receivers.urls)}
        given: dict[str, Any] = {"reward": "brightness", "held_out": [], "webhook": webhook}
        while True:
            with contextlib.suppress(RolloverError):
                job = self.client.submit(
                    PROMPT, nfe=nfe, seed=seed, priority=priority, idempotency_key=key, **given
                )
                self.told[job.id] = webhook["url"]
                return job.id
            time.sleep(0.2)

    def record(self, job_id: str) -> Record:
        """A job as Redis has it."""
        with Redis.from_url(self._redis_url, decode_responses=True) as redis:
            fields: Any = redis.hgetall(job_key(job_id))
        return Record.from_hash(fields)

    def busy(self) -> set[int]:
        """The workers that run a job."""
        with Redis.from_url(self._redis_url, decode_responses=True) as redis:
            names: Any = redis.smembers(WORKERS_KEY)
            texts: Any = [redis.get(worker_key(name)) for name in names]
        beats = [WorkerBeat.model_validate_json(text) for text in texts if text]
        return {beat.pid for beat in beats if beat.state is WorkerState.BUSY}

    def counted(self) -> Counter[str]:
        """The jobs that have ended, by status, as Prometheus is told."""
        with Redis.from_url(self._redis_url, decode_responses=True) as redis:
            fields: Any = redis.hgetall(totals_key("shapes"))
        return +Counter(Totals.from_hash(fields).jobs)

    @property
    def _redis_url(self) -> str:
        return self.stack._children[-1].command.environment["ROLLOVER_REDIS_URL"]  # noqa: SLF001

    def ended(self, job_id: str, within: float) -> None:
        """Wait until a job has ended. Raises `TimeoutError`."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            with contextlib.suppress(RolloverError):
                if self.client.get(job_id).ended:
                    return
            time.sleep(0.2)
        raise TimeoutError(job_id)

    def expected(self, seed: int, nfe: int) -> Expected:
        """What a job ends with that nobody disturbs."""
        job = self.client.wait(self.submit(seed, nfe), within=300)
        assert job.result, job.error
        return Expected(nfe, job.result.images[0].sha256)

    def faults(self, job_id: str, expected: Expected) -> list[str]:
        """What is wrong with an ended job; nothing, if all promises were kept."""
        job = self.client.get(job_id)
        if job.status != "succeeded" or job.result is None:
            return [f"{job_id} is {job.status}: {job.error}"]
        events = list(self.client.events(job_id))
        candidates = [event.data["nfe"] for event in events if event.type == "candidate"]
        checks = {
            "numbers of events": [event.seq for event in events] == list(range(1, len(events) + 1)),
            "one end": [event.type for event in events if event.final] == ["completed"],
            "each evaluation told once": candidates == list(range(1, expected.nfe + 1)),
            "evaluations charged": job.usage["nfe_spent"] == expected.nfe,
            "the picture": job.result.images[0].sha256 == expected.sha256,
            "the trace": len(self.client.trace(job_id).splitlines()) == expected.nfe,
        }
        return [f"{job_id}: {name}" for name, good in checks.items() if not good]

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.stack.mend()

    def _watch_second(self) -> None:
        first = self.stack._children[1].command  # noqa: SLF001 -- the same again
        log = first.log.with_name("worker-second.log")
        command = Command("worker-second", first.arguments, first.environment, log, first.grace)
        while not self._ended.wait(0.1):
            if self._second is None or self._second.exit_code() is not None:
                if self._second:
                    self._second.kill()
                self._second = Child(command)
        if self._second:
            self._second.stop()
