"""``base``: one run of the model's own ODE. What the model gives before any search."""

from dataclasses import dataclass, replace
from typing import ClassVar

from sampling.events import Round
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.strategies import runs
from sampling.strategies.own_way import OwnWay
from sampling.strategies.runs import RunsState


@dataclass(frozen=True)
class Base(OwnWay):
    """One run; what the budget holds beyond it stays unspent.

    Args:
        steps: of a run; None: the sampler's. A run costs as many NFE.
        interpolant, kernel, grid: see OwnWay.
    """

    name: ClassVar[str] = "base"

    steps: int | None = None

    def walk(self, sampler: Sampler) -> Sampler:
        """What a run walks, in its own number of steps."""
        return replace(super().walk(sampler), steps=sampler.steps if self.steps is None else self.steps)

    def runs(self, problem: Problem) -> int:
        """How many runs are made."""
        del problem
        return 1

    @property
    def together(self) -> int:
        """How many runs are solved at a time."""
        return 1

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One run."""
        return self.walk(sampler).steps

    def init(self, problem: Problem) -> Round[RunsState]:
        """The first step of the first runs."""
        return self.step(problem, runs.start(problem))

    def step(self, problem: Problem, state: RunsState) -> Round[RunsState]:
        """The next step of the runs under way, or the first of the next."""
        walk = replace(problem, sampler=self.walk(problem.sampler))
        return runs.advance(walk, state, self.runs(problem), self.together)

    def finished(self, problem: Problem, state: RunsState) -> bool:
        """When every run has ended."""
        return runs.over(state, self.runs(problem))

    def unspent(self, problem: Problem, state: RunsState) -> str | None:
        """What is left pays for no more of the runs that the strategy makes."""
        if state.ledger.nfe_left == 0:
            return None
        made = self.runs(problem)
        return f"{self.name} made {made} run{'s' * (made > 1)} of {self.minimum_nfe(problem.sampler)} NFE"
