"""``best_of_n``: as many independent runs as the budget pays for, and the best of them."""

from dataclasses import dataclass
from typing import ClassVar

from sampling.problem import Problem
from sampling.strategies.base import Base
from sampling.strategies.runs import RunsState


@dataclass(frozen=True)
class BestOfN(Base):
    """N = floor(budget / steps) runs from N noises; argmax of the reward.

    A remainder that does not pay for a whole run stays unspent: a shorter run would not be one of the N.
    Run n starts from the noise at address (n, 0, 0), so run 0 is the run of ``base``, up to the
    last bits that a model's batch size changes.

    Args:
        steps, interpolant, kernel, grid: see Base.
        batch: runs solved together, at least 1. It changes when results come, and not which.
    """

    name: ClassVar[str] = "best_of_n"

    batch: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1:
            raise ValueError(f"batch is at least 1, and was {self.batch}")

    def runs(self, problem: Problem) -> int:
        """As many as the budget pays for."""
        return problem.nfe // self.minimum_nfe(problem.sampler)

    @property
    def together(self) -> int:
        """How many runs are solved at a time."""
        return self.batch

    def extend(self, problem: Problem, state: RunsState) -> RunsState:
        """More runs, from the noises that follow."""
        del problem
        return state
