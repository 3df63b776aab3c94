"""The baseline of a job: best-of-n with the NFE that its search spent, run once that has ended."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from PIL.Image import Image

from contracts.baseline import baseline_of
from contracts.events import BaselineEvent
from contracts.jobs import Progress, Seconds, Spent
from contracts.requests import ResolvedRequest
from contracts.stops import StopReason
from sampling.state import State
from workers.checkpoints import Standing
from workers.engine import Engine, Search
from workers.results import Outcome, spent


@dataclass
class Baseline:
    """One execution's part of a baseline.

    Args:
        search: best-of-n, ready to run.
        begun: where the job stood when this execution came to it: the search's last state, and the
            baseline's where an earlier execution had begun it.
        state: the baseline's latest; None before its first round.
        start: of this execution's part, by the monotonic clock.
    """

    search: Search
    begun: Standing
    state: State | None
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def open(
        cls, engine: Engine, request: ResolvedRequest, begun: Standing, image: Image | None = None
    ) -> Self:
        """Make the baseline of a search ready.

        Raises:
            workers.failures.JobFailedError: see `Engine.open`.
        """
        start = time.monotonic()
        search = engine.open(baseline_of(request, begun.state.ledger.nfe_spent), image=image)
        for name, before in begun.memory.baseline_seconds.items():
            search.clock.seconds[name] = search.clock.seconds.get(name, 0.0) + before
        search.clock.seconds.pop("total", None)
        if begun.memory.max_batch is not None:
            search.hold_to(begun.memory.max_batch)
        return cls(search, begun, begun.baseline, start)

    @property
    def event(self) -> BaselineEvent:
        """What tells clients that it begins."""
        return BaselineEvent(nfe=self.search.request.budget.nfe)

    @property
    def seconds(self) -> dict[str, float]:
        """What it took, over all executions."""
        before = self.begun.memory.baseline_seconds.get("total", 0.0)
        return self.search.clock.seconds | {"total": before + time.monotonic() - self.start}

    @property
    def nfe(self) -> int:
        """Evaluations made."""
        return self.state.ledger.nfe_spent if self.state else 0

    def rounds(self) -> Iterator[State]:
        """Run it from where it stands, round by round."""
        for around in self.search.rounds(self.state):
            self.state = around.state
            yield around.state

    def standing(self, elapsed: float) -> Standing:
        """What another execution would need to go on from here; `elapsed` is the job's time."""
        memory = replace(self.begun.memory, elapsed=elapsed, baseline_seconds=self.seconds)
        memory = replace(memory, max_batch=self.search.problem.max_batch)
        return replace(self.begun, memory=memory, baseline=self.state)

    def progress(self, of_search: Progress) -> Progress:
        """How far the job is."""
        return of_search.model_copy(update={"baseline_nfe_spent": self.nfe})

    def spent(self, stop: StopReason, nfe_redone: int) -> Spent | None:
        """What it has spent when it stops; None before its first round."""
        if self.state is None:
            return None
        return spent(self.search, Outcome(self.state, stop), nfe_redone, Seconds(**self.seconds))
