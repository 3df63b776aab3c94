"""A span for each level of a search."""

import time
from dataclasses import dataclass, field

from contracts.tracing import record
from sampling.events import Round
from sampling.state import State


@dataclass
class LevelSpans:
    """Traces each chain's levels, from where the chain's last one ended.

    Args:
        start: when the search began, in Unix seconds.
    """

    start: float = field(default_factory=time.time)
    _ends: dict[int, float] = field(default_factory=dict[int, float])

    def add(self, around: Round[State]) -> None:
        """Trace the levels that ended with a round; `nfe` is what the whole search has spent by then."""
        for level in around.levels:
            record(
                "level",
                self._ends.get(level.chain, self.start),
                chain=level.chain,
                level=level.level,
                t=level.t,
                nfe=around.state.ledger.nfe_spent,
                draws=level.draws,
                reward=level.reward,
                best_reward=level.best_reward,
            )
            self._ends[level.chain] = time.time()
