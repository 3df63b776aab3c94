"""The way that strategies of whole runs go where nobody names another: that of the model's own pipeline."""

from dataclasses import dataclass, replace

from sampling.grids import GRIDS
from sampling.problem import Problem
from sampling.sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class OwnWay:
    """Path, kernel and grid of a strategy, which replace those of the problem's sampler.

    By default they are the model's own, whatever path others search on: its ODE on the linear path, at the
    times of its own pipeline.

    Args:
        interpolant: see Sampler, as for the next two; diffusion and eta are the problem's.
        kernel: of a step.
        grid: "linear" on the linear path is the model's own schedule.
    """

    interpolant: str = "linear"
    kernel: str = "ode"
    grid: str = "linear"

    def __post_init__(self) -> None:
        self.walk(Sampler())

    def walk(self, sampler: Sampler) -> Sampler:
        """What is walked. Raises UnknownNameError for a name not in the tables."""
        return replace(sampler, interpolant=self.interpolant, kernel=self.kernel, grid=self.grid)


def times_of(problem: Problem, steps: int) -> tuple[float, ...]:
    """The steps + 1 times of a walk, 1 to 0: the model's own schedule where path and grid are linear."""
    sampler = problem.sampler
    own = sampler.interpolant == sampler.grid == "linear"
    return problem.schedule(steps) if own else GRIDS[sampler.grid](steps)
