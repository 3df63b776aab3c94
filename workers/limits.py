"""When a search ends before its budget does."""

import time
from dataclasses import dataclass, field

from contracts.jobs import StopReason
from contracts.requests import Budget
from sampling.events import Round
from sampling.state import State


@dataclass
class Limits:
    """Looks at every round of one search.

    Args:
        budget: the request's.
        timeout: seconds after which the server ends any job.
        start: of the search, by the monotonic clock.
    """

    budget: Budget
    timeout: float
    start: float = field(default_factory=time.monotonic)
    _best: float | None = None
    _best_at: int = 0

    def reached(self, around: Round[State]) -> StopReason | None:
        """Why to stop after this round, if there is a reason."""
        elapsed = time.monotonic() - self.start
        if elapsed >= self.timeout:
            return "deadline"
        if not around.state.best:
            return None  # a search must not end without a picture only because it is slow
        self._note_gain(around)
        if self._met_target():
            return "target_reward"
        if self._out_of_patience(around):
            return "patience"
        if self.budget.seconds is not None and elapsed >= self.budget.seconds:
            return "seconds"
        return None

    def _note_gain(self, around: Round[State]) -> None:
        for candidate in around.candidates:
            if self._best is None or candidate.reward > self._best:
                self._best, self._best_at = candidate.reward, candidate.nfe

    def _met_target(self) -> bool:
        target = self.budget.target_reward
        return target is not None and self._best is not None and self._best >= target

    def _out_of_patience(self, around: Round[State]) -> bool:
        patience = self.budget.patience
        if patience is None or self._best is None:
            return False
        return around.state.ledger.nfe_spent - self._best_at >= patience
