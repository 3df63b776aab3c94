"""One execution of one job, from taking it to its final status."""

import logging
import threading
from dataclasses import dataclass, field

import redis

from contracts.errors import ERRORS
from contracts.events import Canceled, Completed, Failed
from contracts.jobs import JobError, Status, hash_fields, now
from contracts.requests import ResolvedRequest
from contracts.settings import Settings
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from sampling.events import Round
from sampling.state import State
from workers.engine import Engine, Search
from workers.failures import job_error
from workers.hold import AWAY, Hold, HoldLostError, load
from workers.limits import Limits
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
        store: for images, previews and traces.
        worker: this worker's name.
        settings: the server's.
        stopping: set when the worker must end; the running job is then given back.
    """

    connection: redis.Redis
    engine: Engine
    store: ArtifactStore
    worker: str
    settings: Settings
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, job_id: str) -> None:
        """Run a job to its final status.

        A job that has ended or is gone is left alone. The job's own errors end it as failed.

        Raises:
            GivenBackError: the job is queued again.
            redis.ConnectionError: Redis went away for good; the job is not lost, another execution takes it.
        """
        if self.stopping.is_set():
            raise GivenBackError
        record = load(self.connection, job_id)
        if record is None or record.status.final:
            log.info("%s is %s: nothing to do", job_id, record.status if record else "deleted")
            return
        try:
            hold = Hold.take(self.connection, record, self.worker)
            Execution(self, hold).run()
        except HoldLostError as error:
            log.warning("stopped: %s", error)

    def report_lost(self, job_id: str) -> None:
        """End a job as `worker_lost`, unless it has ended."""
        kind = ERRORS["worker_lost"]
        error = JobError(code="worker_lost", title=kind.title, detail=kind.meaning)
        arguments = write_args(
            allowed=(Status.QUEUED, Status.RUNNING),
            status=Status.FAILED,
            fields=hash_fields(error=error, completed_at=now()),
            events=[Failed(error=error)],
        )
        self.connection.eval(WRITE_SCRIPT, 2, *write_keys(job_id), *arguments)


@dataclass
class Execution:
    """One attempt at a job."""

    runner: Runner
    hold: Hold
    _search: Search | None = None
    _state: State | None = None

    def __post_init__(self) -> None:
        self._results = Results(self.hold, self.runner.store)
        self._publisher = Publisher(self.hold, self.runner.store)

    def run(self) -> None:
        """Search, store and finish; see `Runner.run`."""
        if self.hold.record.cancel_requested:
            self.hold.write(
                [Canceled(nfe_spent=0)], status=Status.CANCELED, fields=hash_fields(completed_at=now())
            )
            return
        try:
            self._search = self.runner.engine.open(self.hold.record.request)
            with self._publisher:
                outcome = self._searched(self._search)
            self._finish(self._search, outcome)
        except (HoldLostError, *AWAY):
            raise
        except GivenBackError:
            self.hold.write(status=Status.QUEUED)
            raise
        except Exception as error:
            log.exception("%s failed", self.hold.record.id)
            self._fail(job_error(error))

    def _searched(self, search: Search) -> Outcome:
        """Run the search and publish its rounds until it ends or is ended."""
        limits = Limits(search.request.budget, self.runner.settings.job_timeout_seconds)
        pictures = LevelPictures() if search.request.previews == "levels" else None
        for around in search.rounds():
            self._state = around.state
            if self._publisher.publish(update_of(around, search.request, pictures)):
                return Outcome(around.state, "canceled")
            if self.runner.stopping.is_set():
                raise GivenBackError
            if reason := limits.reached(around):
                return Outcome(around.state, reason)
        assert self._state is not None  # noqa: S101 -- a search has at least one round
        return Outcome(self._state, "finished" if self._state.ledger.nfe_left else "budget")

    def _finish(self, search: Search, outcome: Outcome) -> None:
        """Store what was found, then the final status, the event and the result at once."""
        result = self._results.write(search, outcome, self._publisher.trace)
        state = outcome.state
        spent, best = state.ledger.nfe_spent, state.best_reward
        error = None
        if outcome.stopped_by == "canceled":
            status, event = Status.CANCELED, Canceled(nfe_spent=spent, best_reward=best)
        elif outcome.stopped_by == "deadline":
            error = deadline_error(self.runner.settings.job_timeout_seconds)
            status, event = Status.FAILED, Failed(error=error)
        else:
            assert best is not None  # noqa: S101 -- only a cancel ends a search before its first score
            status, event = Status.SUCCEEDED, Completed(nfe_spent=spent, best_reward=best)
        fields = hash_fields(
            progress=progress(state, search.request),
            result=result,
            error=error,
            usage=self._results.usage(search, state),
            completed_at=now(),
        )
        self.hold.write([event], status=status, fields=fields)

    def _fail(self, error: JobError) -> None:
        """End the job as failed, with what it had spent."""
        search, state = self._search, self._state
        usage = self._results.usage(search, state) if search and state else None
        fields = hash_fields(error=error, usage=usage, completed_at=now())
        self.hold.write([Failed(error=error)], status=Status.FAILED, fields=fields)


def deadline_error(seconds: float) -> JobError:
    """What a job that ran too long ends with; what it found by then is its result all the same."""
    detail = f"The search ran {seconds:g} s, the most this server allows; the result is the best so far."
    return JobError(code="deadline", title=ERRORS["deadline"].title, detail=detail)


def update_of(around: Round[State], request: ResolvedRequest, pictures: LevelPictures | None) -> Update:
    """What a round has to tell; `pictures` remembers those of the levels, None where none are wanted."""
    shown = pictures.of(around) if pictures else [None] * len(around.levels)
    return Update(
        candidates=tuple(candidate_event(candidate) for candidate in around.candidates),
        levels=tuple((level_event(level), image) for level, image in zip(around.levels, shown, strict=True)),
        progress=progress(around.state, request),
    )
