"""One execution of one job, from taking it to its final status, in the engine's process."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import redis
from PIL.Image import Image

from contracts import tracing
from contracts.errors import ERRORS
from contracts.events import Canceled, Completed, Event, Failed
from contracts.jobs import (
    Checkpoint,
    JobError,
    Progress,
    Record,
    Result,
    Status,
    Usage,
    hash_fields,
    now,
)
from contracts.keys import checkpoints_path
from contracts.logs import bound
from contracts.requests import ResolvedRequest
from contracts.settings import Settings
from contracts.stops import StopReason
from sampling.events import Round
from sampling.extension import extended
from sampling.ledger import Ledger
from sampling.state import State
from workers.baseline import Baseline
from workers.checkpoints import EVERY_NFE, Checkpoints, Memory, Standing, read
from workers.diagnosis import device_fault, job_error
from workers.engine import Engine, Search
from workers.failures import StorageFailedError
from workers.hold import Hold, HoldLostError, load, patiently
from workers.inputs import input_image
from workers.limits import Limits
from workers.messages import Ending, Order, Stage
from workers.previews import LevelPictures
from workers.publish import Publisher, Update
from workers.results import Outcome, Results
from workers.spans import LevelSpans
from workers.store import ArtifactStore
from workers.translate import candidate_event, level_event, progress

HALTED: tuple[StopReason, ...] = ("canceled", "deadline")
"""Reasons that end a job and not only its search."""
log = logging.getLogger(__name__)


class GivenBackError(Exception):
    """The worker was told to stop: the job goes back to its queue."""


class RoundLeftError(Exception):
    """A round is left before its end, for a reason to end the search; None: the job is given back."""

    def __init__(self, reason: StopReason | None) -> None:
        super().__init__(reason)
        self.reason: StopReason | None = reason


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
        enter: told what a job has come to.
    """

    connection: redis.Redis
    engine: Engine
    store: ArtifactStore
    worker: str
    settings: Settings
    orders: set[tuple[str, Order]] = field(default_factory=set[tuple[str, Order]])
    tick: Callable[[], None] = lambda: None
    enter: Callable[[Stage], None] = lambda stage: None  # noqa: ARG005 -- for callers who do not want to know

    def run(self, job_id: str, above: str | None = None, lost: JobError | None = None) -> Ending:
        """Run a job to its final status, or give it back when told to.

        A job that has ended or is gone is left alone. The job's own errors end it as failed; a fault of the
        device is raised, and this process is of no further use then. What is done is traced below the span
        of the traceparent `above`. With an error in `lost` the search goes no further: the job ends with it.
        """
        record = patiently(lambda: load(self.connection, job_id))
        if record is None or record.status.final:
            log.info("%s is %s: nothing to do", job_id, record.status if record else "deleted")
            return Ending.DONE
        with (
            bound(generation=job_id, attempt=record.attempts + 1, request=record.request_id),
            tracing.span("search", above, generation=job_id),
        ):
            return self._execute(record, lost)

    def _execute(self, record: Record, lost: JobError | None) -> Ending:
        try:
            Execution(self, Hold.take(self.connection, record, self.worker), lost).run()
        except HoldLostError as error:
            log.warning("stopped: %s", error)
            after = patiently(lambda: load(self.connection, record.id))
            return Ending.DONE if after is None or after.status.final else Ending.OVERTAKEN
        except GivenBackError:
            return Ending.GIVEN_BACK
        return Ending.DONE


@dataclass(frozen=True)
class Found:
    """What is known once the search has ended.

    Args:
        stopped_by: why the job ends: for the search's reason, or because its baseline was stopped.
        standing: with the search's last state.
        progress: of the job.
        result: None where nothing was scored yet.
        usage: of the job.
    """

    stopped_by: StopReason
    standing: Standing
    progress: Progress
    result: Result | None
    usage: Usage


@dataclass
class Execution:
    """One attempt at a job; with `lost`, at nothing but a result of what others have found."""

    runner: Runner
    hold: Hold
    lost: JobError | None = None
    _search: Search | None = None
    _state: State | None = None
    _found: Found | None = None
    _baseline: Baseline | None = None
    _image: Image | None = None
    _told_within: int = 0

    def __post_init__(self) -> None:
        record, runner = self.hold.record, self.runner
        if record.cancel_requested:
            self.lost = None
        self._checkpoints = Checkpoints(runner.store, record.id, self.hold.attempt, record.checkpoint)

    def _begin(self) -> None:
        """Read what earlier executions have left, and go on from there."""
        record, runner = self.hold.record, self.runner
        self._standing = read(runner.store, record, runner.engine.device, runner.tick)
        memory = self._standing.memory if self._standing else Memory()
        before = memory.seconds.get("total", 0.0)
        self._results = Results(self.hold, runner.store, before=before, tick=runner.tick)
        self._publisher = Publisher(self.hold, runner.store, self._checkpoints)
        self._pictures = LevelPictures(self._standing.seen if self._standing else ())
        self._limits = Limits(
            record.request.budget,
            runner.settings.job_timeout_seconds,
            before=memory.elapsed,
            best=memory.best,
            best_at=memory.best_at,
        )
        done = self._standing.nfe if self._standing else 0
        log.info("begins after %d of %d NFE", done, record.request.budget.nfe)
        if self.hold.attempt > 1 and not self.lost:
            self._resume()

    def run(self) -> None:
        """Search, store and finish; see `Runner.run`."""
        record = self.hold.record
        if self.lost or record.cancel_requested:
            self.runner.enter(Stage.FINISHING)
        try:
            self._begin()
            if self._ended_unbegun():
                return
            with tracing.span("load"):
                self._search = self._opened()
            if self.lost:
                self._fail(self.lost)
                return
            if self._ended_unbegun():
                return
            self.runner.enter(Stage.SEARCHING)
            with self._publisher:
                outcome = self._searched(self._search)
                self.runner.enter(Stage.FINISHING)
            with tracing.span("store"):
                self._found = self._shown(self._search, outcome)
            if record.request.baseline and outcome.stopped_by not in HALTED:
                self._found = self._compared(self._found)
            self._finish(self._found)
        except (HoldLostError, redis.RedisError):
            raise
        except GivenBackError:
            self.hold.write(status=Status.QUEUED)
            raise
        except Exception as error:
            if device_fault(error):
                raise
            log.exception("%s failed", record.id)
            self._fail(self.lost or job_error(error))

    def _ended_unbegun(self) -> bool:
        """End the job where its cancel came before it had a state to make a result of; whether so."""
        if self._standing or not self._told(Order.CANCEL):
            return False
        record = self.hold.record
        self._end(canceled_event(record), Status.CANCELED, usage=record.usage_so_far("canceled"))
        return True

    @property
    def _ended_before(self) -> StopReason | None:
        """Why the search ended, where an earlier execution saw that and left the baseline to this one."""
        return self._standing.ended if self._standing else None

    def _resume(self) -> None:
        """Tell what of earlier executions' work counts."""
        if self._standing is None:
            self.hold.resume(0)
        else:
            spent = self._standing.state.ledger.nfe_spent - self.hold.record.nfe_before
            self.hold.resume(spent, self._standing.baseline_nfe)

    def _opened(self) -> Search:
        """The search, with the time that earlier executions took."""
        record = self.hold.record
        if record.parent and self._standing is None:
            raise StorageFailedError(checkpoints_path(record.id))
        self._image = input_image(self.runner.store, record, self.runner.tick)
        search = self.runner.engine.open(record.request, record.nfe_before, self._image)
        self.runner.tick()
        if self._standing:
            for name, spent in self._standing.memory.seconds.items():
                search.clock.seconds[name] = search.clock.seconds.get(name, 0.0) + spent
            search.clock.seconds.pop("total", None)
            if self._standing.memory.max_batch is not None:
                search.hold_to(self._standing.memory.max_batch)
        return search

    def _searched(self, search: Search) -> Outcome:
        """Run the search and publish its rounds until it ends or is ended."""
        start = self._standing.state if self._standing else None
        if start is not None:
            if self._standing and self._standing.inherited:
                start = extended(search.problem, search.strategy, start)
            self._state = start
            if ended := self._ended_before:
                return Outcome(start, ended)
            # An earlier execution may have been killed between its last round and the end.
            if reason := self._ended_by(Round(start)):
                return Outcome(start, reason)
        search.metered.stepped = partial(self._tell_within, search)
        search.metered.going_on = self._leave_in_time
        try:
            return self._run_rounds(search, start)
        except RoundLeftError as error:
            return self._left(search, error.reason)

    def _run_rounds(self, search: Search, start: State | None) -> Outcome:
        """Run the search from a state on and publish its rounds."""
        saved = start.ledger.nfe_spent if start else 0
        levels = LevelSpans()
        for around in search.rounds(start):
            self._state, self._told_within = around.state, 0
            spent = around.state.ledger.nfe_spent
            levels.add(around)
            reason = self._ended_by(around)
            update = self._update(around, search.request)
            giving_back = self._told(Order.GIVE_BACK) and not reason
            due = around.levels or spent - saved >= EVERY_NFE or giving_back
            if due and reason not in HALTED:  # of a job that ends now, nothing goes on
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

    def _tell_within(self, search: Search) -> None:
        """Tell how far a round of many batches is: where it never ends, so much was spent all the same."""
        self.runner.engine.stepped()
        made = search.metered.made
        if made <= self._told_within + EVERY_NFE:
            return
        self._told_within = made
        self._publisher.publish(Update(self._so_far(search)))

    def _so_far(self, search: Search) -> Progress:
        """How far the search is within a round."""
        so_far = self.hold.record.progress.model_copy(update={"nfe_spent": 0})
        if self._state:
            so_far = progress(self._state, search.request, self.hold.record.nfe_before)
        return so_far.model_copy(update={"nfe_spent": so_far.nfe_spent + search.metered.made})

    def _leave_in_time(self) -> None:
        """Leave a round that has a batch to make yet, where an order or a limit of time asks for it.

        Raises:
            RoundLeftError: nothing that the round found was told, so that whoever goes on tells it once.
        """
        reason = "canceled" if self._told(Order.CANCEL) else self._limits.reached_within(self._state)
        if reason or self._told(Order.GIVE_BACK):
            raise RoundLeftError(reason)

    def _left(self, search: Search, reason: StopReason | None) -> Outcome:
        """End the search where it stood before a round that it left, or give it back from there.

        What was made in that round is spent; whoever goes on makes it again, at no charge.
        """
        if reason:
            state = self._state or State(ledger=Ledger(search.problem.nfe))
            return Outcome(state, reason, left=search.metered.made)
        standing = self._stands(search, self._state) if self._state else None
        self._publisher.publish(Update(self._so_far(search), standing=standing))
        raise GivenBackError

    def _compared(self, found: Found) -> Found:
        """Run the baseline to its end, or until it is stopped: what it found by then is shown."""
        run = Baseline.open(self.runner.engine, self.hold.record.request, found.standing, self._image)
        self._baseline = run
        self.runner.tick()
        self.runner.enter(Stage.SEARCHING)
        with tracing.span("baseline"), self._publisher:
            if not self._ended_before:
                begins = Update(found.progress, baseline=run.event, standing=found.standing)
                self._publisher.publish(begins)
            reason = self._run_baseline(run, found.progress)
            self.runner.enter(Stage.FINISHING)
        return self._with_baseline(found, run, reason)

    def _run_baseline(self, run: Baseline, progress: Progress) -> StopReason:
        """Run the baseline and publish how far it is; `progress` is the search's."""
        saved = run.nfe
        rounds = run.rounds()
        while not (reason := self._halted()):
            if next(rounds, None) is None:
                return "budget"
            giving_back = self._told(Order.GIVE_BACK)
            due = run.nfe - saved >= EVERY_NFE or giving_back
            standing = run.standing(self._limits.elapsed) if due else None
            saved = run.nfe if due else saved
            self._publisher.publish(Update(run.progress(progress), standing=standing))
            self.runner.tick()
            if giving_back:
                raise GivenBackError
        return reason

    def _with_baseline(self, found: Found, run: Baseline, reason: StopReason) -> Found:
        """Add to what the search found what its baseline did."""
        result = found.result
        if result and run.state:
            baseline = self._results.write_baseline(run.search, Outcome(run.state, reason))
            result = result.model_copy(update={"baseline": baseline})
        return replace(
            self._with_spent(found, run, reason),
            stopped_by=reason if reason in HALTED else found.stopped_by,
            result=result,
        )

    def _with_spent(self, found: Found, run: Baseline, stop: StopReason) -> Found:
        """Add what the baseline has spent when it stops."""
        spent = run.spent(stop, self.hold.baseline_nfe_redone)
        usage = found.usage.model_copy(update={"baseline": spent})
        return replace(found, progress=run.progress(found.progress), usage=usage)

    def _halted(self) -> StopReason | None:
        """Why to end whatever runs, if there is a reason."""
        if self._told(Order.CANCEL):
            return "canceled"
        return "deadline" if self._limits.overdue else None

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
            progress=progress(around.state, request, self.hold.record.nfe_before),
        )

    def _stands(self, search: Search, state: State) -> Standing:
        """What another execution would need to go on from here."""
        memory = Memory(
            elapsed=self._limits.elapsed,
            best=self._limits.best,
            best_at=self._limits.best_at,
            seconds=search.clock.seconds | {"total": self._results.seconds},
            max_batch=search.problem.max_batch,
        )
        return Standing(state, memory, self._pictures.seen)

    def _shown(self, search: Search, outcome: Outcome) -> Found:
        """Store what the search found."""
        result = self._results.write(search, outcome)
        self.runner.tick()
        if self._standing and self._ended_before:
            standing = self._standing
        else:
            standing = replace(self._stands(search, outcome.state), ended=outcome.stopped_by)
        usage = self._results.usage(search, outcome)
        so_far = progress(outcome.state, search.request, self.hold.record.nfe_before)
        return Found(
            stopped_by=outcome.stopped_by,
            standing=standing,
            progress=so_far.model_copy(update={"nfe_spent": usage.nfe_spent}),
            result=result,
            usage=usage,
        )

    def _finish(self, found: Found) -> None:
        """Write the final status, the event and the result at once."""
        spent, best = found.progress.nfe_spent, found.progress.best_reward
        error = checkpoint = None
        if found.stopped_by == "canceled":
            status, event = Status.CANCELED, Canceled(nfe_spent=spent, best_reward=best)
        elif found.stopped_by == "deadline":
            error = deadline_error(self.runner.settings.job_timeout_seconds)
            status, event = Status.FAILED, Failed(error=error)
        else:
            assert best is not None  # noqa: S101 -- only a cancel ends a search before its first score
            status, event = Status.SUCCEEDED, Completed(nfe_spent=spent, best_reward=best)
            # A search that ended well can be given more to spend.
            # Of no other state can it be said that the search has spent what the job says, but for a round
            # that its seconds cut short.
            checkpoint = self._checkpoints.write(replace(found.standing, ended=None, baseline=None))
        self._end(
            event,
            status,
            checkpoint,
            progress=found.progress,
            result=found.result,
            error=error,
            usage=found.usage,
        )

    def _fail(self, error: JobError) -> None:
        """End the job as failed, with what it had spent and the best it had found."""
        self.runner.enter(Stage.FINISHING)
        found = self._found
        if found and self._baseline:
            found = self._with_spent(found, self._baseline, "error")
        usage = found.usage if found else self._usage()
        result = found.result if found else self._best_so_far(error)
        self._end(Failed(error=error), Status.FAILED, error=error, result=result, usage=usage)

    def _best_so_far(self, error: JobError) -> Result | None:
        """What the search had found before this error; None: nothing, or nothing that can be shown."""
        # A store that has just refused for a minute is not asked for as long again.
        if self._search is None or error.code == "storage_failed":
            return None
        state = self._state or (self._standing.state if self._standing else None)
        if state is None:
            return None
        try:
            return self._results.write(self._search, self._failed_at(state))
        except Exception as another:
            if isinstance(another, redis.RedisError) or device_fault(another):
                raise
            log.exception("%s fails without a result", self.hold.record.id)
            return None

    def _usage(self) -> Usage | None:
        """What a search has spent that goes no further, in this execution or before it."""
        search, state = self._search, self._state
        if search and state:
            return self._results.usage(search, self._failed_at(state))
        return self.hold.record.usage_so_far("error")

    def _failed_at(self, state: State) -> Outcome:
        """What becomes of a search whose job fails: it may have ended before."""
        return Outcome(state, self._ended_before or "error")

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
