"""RQ's worker as we need it: warm, alive to others while it works, and deaf to any function but ours."""

import logging
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import AbandonedJobError, StopRequested
from rq.executions import Execution as RqExecution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from contracts.beats import WorkerState
from contracts.keys import JOB_FUNCTION, queue_name
from workers.beat import Beat
from workers.execution import Runner
from workers.hold import AWAY
from workers.jobs import current_runner, run_generation

JOB_TTL = 8
"""Seconds without a heartbeat after which another worker takes a running job over."""
MAINTENANCE = 2
"""Seconds between two looks for abandoned jobs, while this worker has nothing to do."""
WORKER_TTL = 16
"""RQ waits for a job 15 s less than this, so that a stop is noticed within a second."""
log = logging.getLogger(__name__)


class RefusedFunctionError(Exception):
    """A job named a function other than the one this worker runs. Whoever can write to Redis can name any."""


class GenerationJob(Job):
    """A job that can run one function and imports nothing that Redis names: no function, no callback."""

    @property
    def func(self) -> Callable[..., Any]:
        """Our function. Raises `RefusedFunctionError` for any other, or for a method of an object."""
        if self.func_name != JOB_FUNCTION or self.instance is not None:
            self.retries_left = 0
            raise RefusedFunctionError(
                f"This worker runs {JOB_FUNCTION} and nothing else; job {self.id} names {self.func_name}."
            )
        return run_generation

    @property
    def success_callback(self) -> Callable[..., Any]:
        """None of Redis' choosing."""
        return _nothing

    @property
    def failure_callback(self) -> Callable[..., Any]:
        """None of Redis' choosing."""
        return _nothing

    @property
    def stopped_callback(self) -> Callable[..., Any]:
        """None of Redis' choosing."""
        return _nothing


def _nothing(*_: object) -> None:
    """Do nothing."""


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's timeout raises an exception wherever the program happens to be; `workers.limits` keeps time."""

    def setup_death_penalty(self) -> None:
        """Set no alarm."""

    def cancel_death_penalty(self) -> None:
        """There is none."""


class GenerationWorker(SimpleWorker):
    """One worker of one model's queue.

    Args:
        connection: for RQ, which wants bytes.
        runner: runs the jobs.
        beat: shows whether this worker is ready or busy.
    """

    job_class = GenerationJob
    death_penalty_class = NoDeathPenalty
    max_connection_wait_time = 4.0

    def __init__(self, connection: redis.Redis, runner: Runner, beat: Beat) -> None:
        # One queue only: with more, RQ cannot move a job to its running list in the same step as it takes it.
        super().__init__(
            [queue_name(runner.engine.model)],
            name=runner.worker,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            job_monitoring_interval=JOB_TTL,
            maintenance_interval=MAINTENANCE,
            exception_handlers=[self._report_abandoned],
            log_job_description=False,
        )
        self.runner = runner
        self.beat = beat
        beat.also = self.beat_for_jobs

    def subscribe(self) -> None:
        """Do not listen to RQ's remote commands: they can be missed; a cancel is read from the job."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job in this process, where the model is warm."""
        token = current_runner.set(self.runner)
        self.beat.show(WorkerState.BUSY)
        try:
            super().execute_job(job, queue)
        finally:
            self.beat.show(WorkerState.READY)
            current_runner.reset(token)

    def beat_for_jobs(self) -> None:
        """Keep the running job ours; called from the beat's thread."""
        for execution in list(self.executions.values()):
            self.maintain_heartbeats(execution.job, execution)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 -- RQ's signature
        """Seconds until a silent worker's job is taken over."""
        return JOB_TTL

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job in short turns: a stop must not interrupt taking one, or it would be mislaid."""
        while not self.runner.stopping.is_set():
            found = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=max_idle_time or 1)
            if found or timeout is None:
                return found
        raise StopRequested

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ does; but a worker that must stop does not wait for a Redis that is away."""
        try:
            super().heartbeat(timeout, pipeline)
        except AWAY:
            if self.runner.stopping.is_set():
                raise StopRequested from None
            raise

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- a signal handler
        """Stop: an idle worker ends within a second, a busy one gives its job back first.

        A second signal ends it at once; its job is then found abandoned.
        """
        if self.runner.stopping.is_set():
            raise SystemExit(1)
        log.info("stopping on %s", signal.Signals(signum).name)
        self.runner.stopping.set()

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,  # noqa: ANN401 -- RQ's signature
        exc_string: str = "",
        execution: RqExecution | None = None,
    ) -> None:
        """As RQ does; where no try is left, the client is told."""
        lost = not job.should_retry
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        if lost:
            self.runner.report_lost(job.id)

    def _report_abandoned(
        self, job: Job, _kind: type[Exception], error: Exception, _trace: TracebackType | None
    ) -> None:
        """Tell the client of a job whose last worker vanished. RQ calls this for every failure."""
        if isinstance(error, AbandonedJobError) and not job.should_retry:
            self.runner.report_lost(job.id)
