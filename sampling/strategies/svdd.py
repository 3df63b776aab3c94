"""``svdd``: soft value-based decoding (arXiv 2408.08252), a choice among children at every level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sampling.events import Candidate
from sampling.problem import Problem
from sampling.strategies.blocks import Blocks
from sampling.strategies.resampling import normalized, systematic


@dataclass(frozen=True)
class Svdd(Blocks):
    """K children of each chain at each level; the chain goes on from one of them.

    The value of a child is the reward of its one-step prediction (the paper's SVDD-PM).

    Args:
        chains: see Blocks, as for finish_steps.
        temperature: alpha, finite and at least 0: a child is drawn with weight exp(reward / alpha); 0 takes
            the best.
    """

    name: ClassVar[str] = "svdd"

    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is finite and at least 0, and was {self.temperature}")

    @property
    def length(self) -> int:
        """A block is one level."""
        return 1

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> Candidate:
        """A draw by weight, at temperature 0 the best."""
        if self.temperature == 0:
            return max(candidates, key=lambda candidate: candidate.reward)
        # The difference first: a small temperature would make each quotient overflow.
        top = max(candidate.reward for candidate in candidates)
        weights = normalized([(candidate.reward - top) / self.temperature for candidate in candidates])
        u = problem.noise.uniform(candidates[0].chain, candidates[0].level)
        return candidates[systematic(weights, 1, u)[0]]
