"""RQ's worker as we need it: alive while it works, deaf to any function but ours, back after any fault."""

import logging
import math
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker, worker_registration
from rq.exceptions import AbandonedJobError, StopRequested
from rq.executions import Execution as RqExecution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now

from contracts.beats import WorkerState
from contracts.keys import JOB_FUNCTION, queue_name
from contracts.turns import ADVANCE_SCRIPT, line_keys, turn_of
from workers.beat import Beat
from workers.hold import away
from workers.jobs import current_supervisor, run_generation
from workers.leases import Leases
from workers.messages import Ending
from workers.supervisor import Supervisor

JOB_TTL = 6
"""Seconds for which RQ keeps what it knows of a running job without a heartbeat; see `workers.leases`."""
MAINTENANCE = 2
"""Seconds between two looks for jobs that were taken and not begun, while this worker has nothing to do."""
MAINTENANCE_LOCK = 3
"""Seconds after which another worker sees to them, where one was killed while it did."""
WORKER_TTL = 16
"""RQ waits for a job 15 s less than this, so that a stop is noticed within a second."""
UNREADABLE_PAUSE = 5.0
"""Seconds for which a worker leaves jobs to others once it found one that it cannot read."""
UNFINISHED = frozenset({Ending.GIVEN_BACK, Ending.OVERTAKEN, Ending.UNREADABLE})
"""Endings of an execution that are no end of its job."""
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

    def forget_the_vanished(self) -> None:
        """Remove mentions of executions of which nothing else is left: RQ cannot end a job that has one."""
        registry = self.execution_registry
        for name in registry.get_execution_ids():
            if not self.connection.exists(RqExecution(name, self.id, self.connection).key):
                self.connection.zrem(registry.key, name)

    @property
    def success_callback(self) -> None:
        """None of Redis' choosing, and none at all: RQ limits its time, which only the main thread can."""

    @property
    def failure_callback(self) -> None:
        """See `success_callback`."""

    @property
    def stopped_callback(self) -> None:
        """See `success_callback`."""


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's timeout raises an exception wherever the program happens to be; `workers.limits` keeps time."""

    def setup_death_penalty(self) -> None:
        """Set no alarm."""

    def cancel_death_penalty(self) -> None:
        """There is none."""


class PromptIntermediateQueue(IntermediateQueue):
    """Jobs that a worker took off the queue and had not begun yet; RQ looks after them after a minute."""

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Whether a job's taker must have died."""
        seen = self.get_first_seen(job_id)
        # Where the clock was set back, now is as good a time as any: at worst two workers run the job.
        return seen is not None and not 0 <= (now() - seen).total_seconds() <= JOB_TTL


class GenerationQueue(Queue):
    """A queue that finds its jobs again soon."""

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """Jobs that were taken and not begun."""
        return PromptIntermediateQueue(self.key, connection=self.connection)

    def acquire_maintenance_lock(self) -> bool:
        """Whether nobody else sees to abandoned jobs. RQ's lock outlives its holder by 15 minutes."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=MAINTENANCE_LOCK))


class GenerationWorker(SimpleWorker):
    """One worker of one model's queue.

    Args:
        connection: for RQ, which wants bytes.
        supervisor: runs the jobs.
        beat: shows that this worker lives.
    """

    job_class = GenerationJob
    queue_class = GenerationQueue
    death_penalty_class = NoDeathPenalty
    max_connection_wait_time = 4.0

    def __init__(self, connection: redis.Redis, supervisor: Supervisor, beat: Beat) -> None:
        # One queue only: with more, RQ cannot move a job to its running list in the same step as it takes it.
        super().__init__(
            [queue_name(supervisor.model)],
            name=supervisor.worker,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            job_monitoring_interval=JOB_TTL,
            maintenance_interval=MAINTENANCE,
            exception_handlers=[self._take_up_again],
            log_job_description=False,
        )
        self.supervisor = supervisor
        supervisor.ours = self.holds
        self.leases = Leases(self.queues[0])
        self._cleaned = -math.inf
        beat.also = self.beat_and_watch

    def work_on(self) -> None:
        """Work until told to stop; whatever else ends RQ's loop, such as a Redis away, begins it anew."""
        while not self.supervisor.stopping.is_set():
            try:
                self.work(logging_level="WARNING")
            except redis.RedisError as error:
                if not away(error):
                    raise
                log.warning("Redis is away: %s", error)
            self.supervisor.stopping.wait(0.5)

    def register_birth(self) -> None:
        """As RQ does, though it finds what it could not take away when Redis went."""
        self.connection.delete(self.key)
        super().register_birth()

    def subscribe(self) -> None:
        """Do not listen to RQ's remote commands: they can be missed; a cancel is read from the job."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Have the supervisor run a job; this process waits, and goes on beating for the job."""
        token = current_supervisor.set(self.supervisor)
        try:
            super().execute_job(job, queue)
        finally:
            # Where RQ's bookkeeping failed, the job is found abandoned, and must be: stop beating for it.
            self.executions.clear()
            self.supervisor.show(WorkerState.READY)
            current_supervisor.reset(token)

    def holds(self, job_id: str) -> bool:
        """Whether RQ lists a job as run by this worker, and by no other.

        Where this worker was silent the job was given to another: begun again here, nobody would find it if
        this worker were killed. Where the list had it twice it is left to whoever runs it.
        """
        names = {execution.composite_key for execution in list(self.executions.values())}
        return self.leases.alone(job_id, names)

    def beat_and_watch(self) -> None:
        """Keep the running job ours, and take up those whose workers are silent.

        Called from the beat's thread: so whoever lives watches, busy or still loading its model.
        """
        for execution in list(self.executions.values()):
            self.maintain_heartbeats(execution.job, execution)
        self.leases.look()
        [queue] = self.queues
        if (silent := self.leases.silent) and queue.acquire_maintenance_lock():
            log.warning("taking over what silent workers ran: %s", silent)
            self.leases.take_over(silent, self._exc_handlers)
            queue.release_maintenance_lock()

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether it is time to look for jobs not begun, however the clock is set meanwhile."""
        return time.monotonic() - self._cleaned >= MAINTENANCE

    def clean_registries(self) -> None:
        """Look after what RQ does, but for jobs whose worker vanished: those are the beat's."""
        [queue] = self.queues
        if queue.acquire_maintenance_lock():
            FailedJobRegistry(queue=queue).cleanup()
            worker_registration.clean_worker_registry(queue)
            queue.intermediate_queue.cleanup(self, queue)
            queue.release_maintenance_lock()
        self._cleaned = time.monotonic()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 -- RQ's signature
        """Seconds until a silent worker's job is taken over."""
        return JOB_TTL

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job in short turns: a stop must not interrupt taking one, or it would be mislaid."""
        while not self.supervisor.stopping.is_set() and self.supervisor.mend():
            self.advance()
            found = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=max_idle_time or 1)
            if found:
                self.advance()  # or another worker, waiting already, would see the next job a second later
            if found or timeout is None:
                return found
        raise StopRequested

    def advance(self) -> None:
        """See that RQ's list has the job whose turn is next; while Redis is away, the next turn will do."""
        keys = line_keys(self.queues[0].key, self.supervisor.model)
        try:
            self.connection.eval(ADVANCE_SCRIPT, len(keys), *keys)
        except redis.RedisError as error:
            if not away(error):
                raise
            if self.supervisor.stopping.is_set():
                raise StopRequested from None
            log.warning("Redis is away: %s", error)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ does; but a worker that must stop does not wait for a Redis that is away."""
        try:
            super().heartbeat(timeout, pipeline)
        except redis.RedisError as error:
            if away(error) and self.supervisor.stopping.is_set():
                raise StopRequested from None
            raise

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- a signal handler
        """Stop: an idle worker ends within a second, a busy one gives its job back first.

        A second signal ends it at once; its job is then found abandoned.
        """
        if self.supervisor.stopping.is_set():
            raise SystemExit(1)
        log.info("stopping on %s", signal.Signals(signum).name)
        self.supervisor.stopping.set()

    def handle_job_success(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any,  # noqa: ANN401 -- RQ's signature
        execution: RqExecution,
    ) -> None:
        """As RQ does where the job has ended; one that has not is left to whoever is next."""
        ending = job._result  # noqa: SLF001 -- nothing public has it before it is stored
        if ending in UNFINISHED:
            self.leave(job, execution, behind=ending is Ending.UNREADABLE)
            return
        if isinstance(job, GenerationJob):
            job.forget_the_vanished()
        super().handle_job_success(job, queue, started_job_registry, execution)

    def leave(self, job: Job, execution: RqExecution, *, behind: bool) -> None:
        """End an execution of a job that has not ended: it is next, unless it is somebody's already.

        With `behind` others go first, and this worker waits a while: or it would take it again and again.
        """
        try:
            turn = turn_of(self.supervisor.fields(job.id)) if behind else None
            with self.connection.pipeline() as pipeline:
                self.leases.leave(job, execution, self.supervisor.model, pipeline, turn)
                self.cleanup_execution(job, pipeline=pipeline, execution=execution)
                pipeline.execute()
        except redis.RedisError as error:
            if not away(error):
                raise
            log.warning("%s is found abandoned once Redis is back: %s", job.id, error)
        if behind:
            self.supervisor.stopping.wait(UNREADABLE_PAUSE)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,  # noqa: ANN401 -- RQ's signature
        exc_string: str = "",
        execution: RqExecution | None = None,
    ) -> None:
        """As RQ does; where no try is left, the client is told."""
        if execution is None:
            take_up_again(job)  # its worker vanished before it had begun
        if not job.should_retry:
            self.supervisor.report_lost(job.id)  # first, or nobody would if this worker ended now
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

    def _take_up_again(
        self, job: Job, _kind: type[Exception], error: Exception, _trace: TracebackType | None
    ) -> None:
        """See that a job whose worker vanished, or could not reach Redis, runs again.

        RQ calls this for every failure.
        """
        if isinstance(error, AbandonedJobError) or away(error):
            take_up_again(job)


def take_up_again(job: Job) -> None:
    """Have RQ queue a job again at the head of its queue, at no cost of its tries.

    How often a job may vanish with its worker is counted in its record, where an engine's death counts, too.
    """
    job.retries_left = (job.retries_left or 0) + 1
    job.enqueue_at_front_on_retry = True
