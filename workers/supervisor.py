"""A worker's view of its jobs: each is run on the resident engine, again and again if need be, to its end."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import redis

from contracts import tracing
from contracts.beats import WorkerState
from contracts.errors import ERRORS
from contracts.events import Canceled, Event, Failed
from contracts.jobs import JobError, Record, Status, hash_fields, now
from contracts.keys import checkpoints_path, job_key
from contracts.logs import bound
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from workers.counts import Counts
from workers.hold import away, load, patiently
from workers.messages import Ending, Order, Stage
from workers.resident import POLL, EngineRefusedError, EngineStartError, Resident, ToldToStopError
from workers.store import ArtifactStore
from workers.trouble import tell

START_PAUSES = (0.0, 1.0, 4.0, 15.0)
"""Seconds before each attempt to start an engine; after the last one the worker ends."""
LONGEST_PAUSE = 30.0
log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Supervisor:
    """Runs jobs one at a time on an engine that it replaces whenever it must.

    Args:
        connection: from `workers.hold.connect`.
        engine: the resident engine.
        store: to sweep the checkpoints of lost jobs.
        max_attempts: executions in a row that may vanish and get no further before a job is lost.
        show: tells others what this worker does.
        ours: whether a job is this worker's to run, and nobody else's.

    Attributes:
        broken: the engine cannot be started any more; the worker ends.
        away: there is no engine, since another worker needed its room; the next job brings one back.
    """

    connection: redis.Redis
    engine: Resident
    store: ArtifactStore
    max_attempts: int
    show: Callable[[WorkerState], None]
    ours: Callable[[str], bool] = lambda _: True
    broken: bool = False
    away: bool = False

    def __post_init__(self) -> None:
        self._counts = Counts(self.connection, self.model)

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self.engine.spec.worker

    @property
    def model(self) -> str:
        """The model it serves."""
        return self.engine.spec.model

    @property
    def stopping(self) -> threading.Event:
        """Set when the worker must end; the running job is then given back."""
        return self.engine.stopping

    def run(self, job_id: str) -> Ending:
        """Run a job to its final status, or give it back: never is it lost here.

        Told to stop, this waits for no Redis that is away: the job is then given back as it is.
        """
        try:
            return self._run(job_id)
        except redis.RedisError as error:
            if not (away(error) and self.stopping.is_set()):
                raise
            log.warning("%s is left as it is, Redis is away: %s", job_id, error)
            return Ending.GIVEN_BACK

    def _run(self, job_id: str) -> Ending:
        untaken, fence = 0, None
        hangs: list[str | None] = []
        while not self.stopping.is_set():
            record = self._ask(lambda: load(self.connection, job_id))
            if record is None or record.status.final:
                return Ending.DONE
            if not self._ask(partial(self.ours, job_id)):
                return Ending.OVERTAKEN
            losses = max(record.losses, untaken)
            lost = self._lost(hangs[-losses:], losses) if losses >= self.max_attempts else None
            # One execution more makes a result of its last state, unless that has been tried already.
            if lost and (losses > self.max_attempts or record.checkpoint is None):
                self.report_lost(job_id, lost)
                return Ending.DONE
            if losses > 1 and self.stopping.wait(min(2.0 ** (losses - 2), LONGEST_PAUSE)):
                break
            if not self._has_engine(partial(self._heed_cancel, record)):
                if self.broken and self._ask(partial(self._canceled, record)):
                    return Ending.DONE  # nobody may come who could make a result of its state
                break
            self.show(WorkerState.BUSY)
            ending = self._execute(record, lost)
            if ending is not Ending.LOST:
                return ending
            hangs.append(self.engine.hung_in)
            after = self._ask(lambda: load(self.connection, job_id))
            taken = after is None or after.attempts > record.attempts
            untaken = 0 if taken else untaken + 1
            fence = record.attempts + 1
        if fence is not None:
            self._requeue(job_id, fence)
        return Ending.GIVEN_BACK

    def _ask(self, ask: Callable[[], T]) -> T:
        """Ask Redis until it answers; `patiently`, but for a worker that must stop."""
        return patiently(ask, self.stopping)

    def _execute(self, record: Record, lost: JobError | None) -> Ending:
        """Have the engine run a job once, or end it with the error of one that is lost."""
        attempt, above = record.attempts + 1, record.traceparent
        if attempt == 1:
            tracing.record("queue", record.created_at.timestamp(), above, generation=record.id)
        with (
            bound(generation=record.id, attempt=attempt, request=record.request_id),
            tracing.span("execution", above, generation=record.id, attempt=attempt) as span,
        ):
            began = time.monotonic()
            ending = self.engine.run(record.id, partial(self.wanted, record.id), lost)
            span.note(ending=ending.value, worker=self.worker)
            log.info("execution %s", ending, extra={"facts": {"seconds": round(time.monotonic() - began, 3)}})
            return ending

    def fields(self, job_id: str) -> dict[str, str]:
        """The record of a job as it is stored; empty where there is none."""
        return cast("dict[str, str]", self.connection.hgetall(job_key(job_id)))

    def wanted(self, job_id: str, stage: Stage) -> Order | None:
        """What is asked of the running job. Redis keeps a cancel until it is heeded: it cannot be missed."""
        if self.stopping.is_set():
            return Order.GIVE_BACK
        if not self._cancel_requested(job_id):
            return None
        if stage is Stage.LOADING:
            self._end_unbegun(job_id)
        return Order.CANCEL

    def _end_unbegun(self, job_id: str) -> None:
        """End a canceled job that has nothing to show; its engine sees that once it has loaded."""
        record = load(self.connection, job_id)
        if record and not (record.status.final or record.checkpoint or record.progress.spent):
            self._end(record)

    def _cancel_requested(self, job_id: str) -> bool:
        return cast("str | None", self.connection.hget(job_key(job_id), "cancel_requested")) == "1"

    def _heed_cancel(self, record: Record) -> None:
        """End a canceled job while there is no engine, unless one can make a result of its state."""
        try:
            if record.checkpoint is None:
                self._canceled(record)
        except redis.RedisError as error:
            if not away(error):
                raise

    def _canceled(self, record: Record) -> bool:
        """End a job as its record stands, where that was asked for; whether it was."""
        if not self._cancel_requested(record.id):
            return False
        self._end(record)
        return True

    def mend(self) -> bool:
        """See, between jobs, that there is an engine, or may be. Whether so; if not, this worker must end."""
        self.away = self.away or self.engine.make_room()
        return self.away or self._has_engine()

    def _has_engine(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """See that there is an engine; one that comes back to the device is part of its job's time.

        Args:
            meanwhile: called again and again while there is none.
        """
        if self.engine.alive:
            return True
        if self.away:
            self.show(WorkerState.BUSY)
            self.away = False
            return self._start(lambda _: None, meanwhile)
        if not self._start(self.show, meanwhile):
            return False
        self._counts.add("engine_restarts")
        return True

    def _start(self, show: Callable[[WorkerState], None], meanwhile: Callable[[], None]) -> bool:
        """Start an engine, try after try. Whether there is one; if not, this worker must end."""
        show(WorkerState.LOADING)
        for pause in START_PAUSES:
            if self._stopped_within(pause, meanwhile):
                return False
            try:
                self.engine.start(lambda: show(WorkerState.WARMING), meanwhile)
            except ToldToStopError:
                break
            except EngineRefusedError as error:
                log.error("the model cannot be loaded any more: %s", error)  # noqa: TRY400 -- no trace needed
                tell(self.connection, self.model, error)
                break
            except EngineStartError as error:
                log.warning("%s", error)
                tell(self.connection, self.model, error)
            else:
                tell(self.connection, self.model, None)
                show(WorkerState.READY)
                return True
        self.broken = not self.stopping.is_set()
        self.stopping.set()
        return False

    def _stopped_within(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        """Wait; whether this worker was told to stop meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.stopping.wait(min(left, POLL)):
                break
            meanwhile()
        return self.stopping.is_set()

    def _lost(self, hangs: list[str | None], losses: int) -> JobError:
        """Why no more is tried: `worker_lost`, or the one reward that all executions waited for in vain.

        Args:
            hangs: the reward that each of those which were lost here hung in; None: it did not hang in one.
            losses: how many were lost, here or elsewhere.
        """
        [name, *others] = {*hangs} or {None}
        if name is None or others or len(hangs) < losses:
            return worker_lost()
        seconds = self.engine.spec.worker_settings.hang_seconds
        detail = (
            f"reward '{name}' gave no answer within {seconds:g} s, each time it was tried: "
            "ask for another reward, mend it, or raise ROLLOVER_HANG_SECONDS where it is only slow"
        )
        return JobError(code="reward_failed", title=ERRORS["reward_failed"].title, detail=detail)

    def report_lost(self, job_id: str, error: JobError | None = None) -> None:
        """End a job with an error, `worker_lost` by default, unless it has ended.

        One whose cancel was asked for is canceled.

        Raises:
            redis.RedisError: this worker was told to stop while Redis was away, and nothing was ended.
        """
        record = self._ask(lambda: load(self.connection, job_id))
        if record is None or record.status.final:
            return
        self._ask(lambda: self._end(record, error or worker_lost()))

    def _end(self, record: Record, error: JobError | None = None) -> None:
        """End a job as its record stands, unless it has ended or another execution has taken it over.

        Without an error it is canceled.
        """
        status, event, error = ended(record, error)
        usage = record.usage_so_far("error" if error else "canceled")
        arguments = write_args(
            allowed=(Status.QUEUED, Status.RUNNING),
            status=status,
            fence=record.attempts,
            fields=hash_fields(error=error, usage=usage, completed_at=now()),
            events=[event],
        )
        reply = cast("Any", self.connection.eval(WRITE_SCRIPT, 2, *write_keys(record.id), *arguments))
        _, after, _ = reply
        if after == status:
            self.store.sweep(checkpoints_path(record.id))

    def _requeue(self, job_id: str, fence: int) -> None:
        """Show that a job waits again which its engine, now lost, could not give back."""
        arguments = write_args(allowed=(Status.RUNNING,), status=Status.QUEUED, fence=fence)
        try:
            if self.ours(job_id):
                self.connection.eval(WRITE_SCRIPT, 2, *write_keys(job_id), *arguments)
        except redis.RedisError as error:
            log.warning("%s is found abandoned once Redis is back: %s", job_id, error)


def worker_lost() -> JobError:
    """What a job ends with that no engine survives."""
    kind = ERRORS["worker_lost"]
    return JobError(code="worker_lost", title=kind.title, detail=kind.meaning)


def ended(record: Record, error: JobError | None) -> tuple[Status, Event, JobError | None]:
    """How a job ends for which no engine runs: canceled where that was asked for, else with an error."""
    if record.cancel_requested or error is None:
        spent, best = record.progress.nfe_spent, record.progress.best_reward
        return Status.CANCELED, Canceled(nfe_spent=spent, best_reward=best), None
    return Status.FAILED, Failed(error=error), error
