"""``code``: CoDe (arXiv 2502.00968), blockwise best-of-n along the way down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sampling.events import Candidate
from sampling.problem import Problem
from sampling.strategies.blocks import Blocks
from sampling.strategy import check_least


@dataclass(frozen=True)
class Code(Blocks):
    """K continuations of each chain over each block of levels; the chain goes on from the best.

    With blocks of one level this is svdd at temperature 0; with one block it is best-of-n. What is left over
    when no continuation of a block can be paid for, less than ``block`` NFE, stays unspent.

    Args:
        chains: see Blocks, as for finish_steps.
        block: levels of a block, at least 1; only the last is scored.
    """

    name: ClassVar[str] = "code"

    block: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"block": 1})

    @property
    def length(self) -> int:
        """Levels of a block."""
        return self.block

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> Candidate:
        """The best."""
        del problem
        return max(candidates, key=lambda candidate: candidate.reward)
