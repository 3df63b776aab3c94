"""``base``: one run of the model's own ODE. What the model gives before any search."""

from dataclasses import dataclass, replace
from typing import ClassVar

from sampling.events import Round
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.strategies import runs
from sampling.strategies.runs import RunsState


@dataclass(frozen=True)
class Base:
    """One run; what the budget holds beyond it stays unspent.

    By default it walks the linear path at the times of the model's own pipeline, whatever path the problem's
    sampler searches on. ``steps``, path, kernel and grid replace those of the problem's sampler.

    Args:
        steps: of a run; None: the sampler's. A run costs as many NFE.
        interpolant: of a run.
        kernel: of a run; diffusion and eta are the problem's.
        grid: of a run; "linear" on the linear path is the model's own schedule.
    """

    name: ClassVar[str] = "base"

    steps: int | None = None
    interpolant: str = "linear"
    kernel: str = "ode"
    grid: str = "linear"

    def __post_init__(self) -> None:
        self.sampler(Sampler())

    def sampler(self, sampler: Sampler) -> Sampler:
        """What a run walks."""
        steps = sampler.steps if self.steps is None else self.steps
        return replace(sampler, steps=steps, interpolant=self.interpolant, kernel=self.kernel, grid=self.grid)

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
        return self.sampler(sampler).steps

    def init(self, problem: Problem) -> Round[RunsState]:
        """The first step of the first runs."""
        return self.step(problem, runs.start(problem))

    def step(self, problem: Problem, state: RunsState) -> Round[RunsState]:
        """The next step of the runs under way, or the first of the next."""
        walk = replace(problem, sampler=self.sampler(problem.sampler))
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
