"""One execution of one job, from taking it to its final status, in the engine's process."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import redis

from contracts.errors import ERRORS
from contracts.events import Canceled, Completed, Event, Failed
from contracts.jobs import Checkpoint, JobError, Record, Status, StopReason, hash_fields, now
from contracts.logs import bound
from contracts.requests import ResolvedRequest
from contracts.settings import Settings
from sampling.events import Round
from sampling.state import State
from workers.checkpoints import EVERY_NFE, Checkpoints, Memory, Standing, read
from workers.diagnosis import device_fault, job_error
from workers.engine import Engine, Search
from workers.hold import Hold, HoldLostError, load, patiently
from workers.limits import Limits
from workers.messages import Ending, Order
from workers.previews import LevelPictures
from workers.publish import Publisher, Update
from workers.results import Outcome, Results
from workers.store import ArtifactStore
from workers.translate import candidate_event, level_event, progress

log = logging.getLogger(__name__)


class GivenBackError(Exception):
    """The worker was told to stop: the job goes back to its queue."""


@dataclass
class Runner:
    """Runs jobs on a warm engine, one at a time.

    Args:
        connection: from `workers.hold.connect`.
        engine: the model and its rewards.
        store: for images, previews, traces and checkpoints.
        worker: this worker's name.
        settings: the server's.
        orders: what the supervisor wants of which job.
        tick: called at every step that gets a job further.
    """

    connection: redis.Redis
    engine: Engine
    store: ArtifactStore
    worker: str
    settings: Settings
    orders: set[tuple[str, Order]] = field(default_factory=set[tuple[str, Order]])
    tick: Callable[[], None] = lambda: None

    def run(self, job_id: str) -> Ending:
        """Run a job to its final status, or give it back when told to.

        A job that has ended or is gone is left alone. The job's own errors end it as failed; a fault of the
        device is raised, and this process is of no further use then.
        """
        record = patiently(lambda: load(self.connection, job_id))
        if record is None or record.status.final:
            log.info("%s is %s: nothing to do", job_id, record.status if record else "deleted")
            return Ending.DONE
        with bound(generation=job_id, attempt=record.attempts + 1, request=record.request_id):
            return self._execute(record)

    def _execute(self, record: Record) -> Ending:
        try:
            Execution(self, Hold.take(self.connection, record, self.worker)).run()
        except HoldLostError as error:
            log.warning("stopped: %s", error)
            after = patiently(lambda: load(self.connection, record.id))
            return Ending.DONE if after is None or after.status.final else Ending.OVERTAKEN
        except GivenBackError:
            return Ending.GIVEN_BACK
        return Ending.DONE


@dataclass
class Execution:
    """One attempt at a job."""

    runner: Runner
    hold: Hold
    _search: Search | None = None
    _state: State | None = None

    def __post_init__(self) -> None:
        record, runner = self.hold.record, self.runner
        self._standing = read(runner.store, record, runner.engine.device)
        memory = self._standing.memory if self._standing else Memory()
        self._results = Results(self.hold, runner.store, before=memory.seconds.get("total", 0.0))
        self._checkpoints = Checkpoints(runner.store, record.id, self.hold.attempt, record.checkpoint)
        self._publisher = Publisher(self.hold, runner.store, self._checkpoints)
        self._pictures = LevelPictures(self._standing.seen if self._standing else ())
        self._limits = Limits(
            record.request.budget,
            runner.settings.job_timeout_seconds,
            before=memory.elapsed,
            best=memory.best,
            best_at=memory.best_at,
        )

    def run(self) -> None:
        """Search, store and finish; see `Runner.run`."""
        record = self.hold.record
        done = self._standing.nfe if self._standing else 0
        log.info("begins after %d of %d NFE", done, record.request.budget.nfe)
        if self.hold.attempt > 1:
            self.hold.resume(done)
        if record.cancel_requested and self._standing is None:
            self._end(canceled_event(record), Status.CANCELED)
            return
        try:
            self._search = self._opened()
            with self._publisher:
                outcome = self._searched(self._search)
            self._finish(self._search, outcome)
        except (HoldLostError, redis.RedisError):
            raise
        except GivenBackError:
            self.hold.write(status=Status.QUEUED)
            raise
        except Exception as error:
            if device_fault(error):
                raise
            log.exception("%s failed", record.id)
            self._fail(job_error(error))

    def _opened(self) -> Search:
        """The search, with the time that earlier executions took."""
        search = self.runner.engine.open(self.hold.record.request)
        self.runner.tick()
        if self._standing:
            for name, spent in self._standing.memory.seconds.items():
                search.clock.seconds[name] = search.clock.seconds.get(name, 0.0) + spent
            search.clock.seconds.pop("total", None)
        return search

    def _searched(self, search: Search) -> Outcome:
        """Run the search and publish its rounds until it ends or is ended."""
        start = self._standing.state if self._standing else None
        if start is not None:
            self._state = start
            # An earlier execution may have been killed between its last round and the end.
            if reason := self._ended_by(Round(start)):
                return Outcome(start, reason)
        saved = self._standing.nfe if self._standing else 0
        for around in search.rounds(start):
            self._state = around.state
            spent = around.state.ledger.nfe_spent
            reason = self._ended_by(around)
            update = self._update(around, search.request)
            giving_back = self._told(Order.GIVE_BACK) and not reason
            if around.levels or spent - saved >= EVERY_NFE or giving_back:
                update = replace(update, standing=self._stands(search, around.state))
                saved = spent
            self._publisher.publish(update)
            self.runner.tick()
            if reason:
                return Outcome(around.state, reason)
            if giving_back:
                raise GivenBackError
        assert self._state is not None  # noqa: S101 -- a search has at least one round
        return Outcome(self._state, "finished" if self._state.ledger.nfe_left else "budget")

    def _ended_by(self, around: Round[State]) -> StopReason | None:
        """Why to end after this round, if there is a reason."""
        return "canceled" if self._told(Order.CANCEL) else self._limits.reached(around)

    def _told(self, order: Order) -> bool:
        """Whether the supervisor has asked for something."""
        if order is Order.CANCEL and self.hold.record.cancel_requested:
            return True
        return (self.hold.record.id, order) in self.runner.orders

    def _update(self, around: Round[State], request: ResolvedRequest) -> Update:
        """What a round has to tell."""
        wanted = request.previews == "levels"
        shown = self._pictures.of(around) if wanted else [None] * len(around.levels)
        return Update(
            candidates=tuple(candidate_event(candidate) for candidate in around.candidates),
            levels=tuple(
                (level_event(level), image) for level, image in zip(around.levels, shown, strict=True)
            ),
            progress=progress(around.state, request),
        )

    def _stands(self, search: Search, state: State) -> Standing:
        """What another execution would need to go on from here."""
        memory = Memory(
            elapsed=self._limits.elapsed,
            best=self._limits.best,
            best_at=self._limits.best_at,
            seconds=search.clock.seconds | {"total": self._results.seconds},
        )
        return Standing(state, memory, self._pictures.seen)

    def _finish(self, search: Search, outcome: Outcome) -> None:
        """Store what was found, then the final status, the event and the result at once."""
        result = self._results.write(search, outcome)
        self.runner.tick()
        state = outcome.state
        spent, best = state.ledger.nfe_spent, state.best_reward
        error = checkpoint = None
        if outcome.stopped_by == "canceled":
            status, event = Status.CANCELED, Canceled(nfe_spent=spent, best_reward=best)
        elif outcome.stopped_by == "deadline":
            error = deadline_error(self.runner.settings.job_timeout_seconds)
            status, event = Status.FAILED, Failed(error=error)
        else:
            assert best is not None  # noqa: S101 -- only a cancel ends a search before its first score
            status, event = Status.SUCCEEDED, Completed(nfe_spent=spent, best_reward=best)
            # A search that ended well can be given more to spend.
            checkpoint = self._checkpoints.write(self._stands(search, state))
        self._end(
            event,
            status,
            checkpoint,
            progress=progress(state, search.request),
            result=result,
            error=error,
            usage=self._results.usage(search, state),
        )

    def _fail(self, error: JobError) -> None:
        """End the job as failed, with what it had spent."""
        search, state = self._search, self._state
        usage = self._results.usage(search, state) if search and state else None
        self._end(Failed(error=error), Status.FAILED, error=error, usage=usage)

    def _end(
        self, event: Event, status: Status, checkpoint: Checkpoint | None = None, **fields: object
    ) -> None:
        """Write the end, and only then remove what another execution would have needed."""
        given = hash_fields(completed_at=now(), checkpoint=checkpoint, **fields)
        self.hold.write([event], status=status, fields=given)
        log.info("ended as %s", status)
        self._checkpoints.sweep(keep=checkpoint)


def canceled_event(record: Record) -> Canceled:
    """The end of a job of which nothing is left but what was published."""
    return Canceled(nfe_spent=record.progress.nfe_spent, best_reward=record.progress.best_reward)


def deadline_error(seconds: float) -> JobError:
    """What a job that ran too long ends with; what it found by then is its result all the same."""
    detail = f"The search ran {seconds:g} s, the most this server allows; the result is the best so far."
    return JobError(code="deadline", title=ERRORS["deadline"].title, detail=detail)
