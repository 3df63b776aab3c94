"""When a search ends before its budget does."""

import time
from dataclasses import dataclass, field

from contracts.requests import Budget
from contracts.stops import StopReason
from sampling.events import Round
from sampling.state import State


@dataclass
class Limits:
    """Looks at every round of one search, and at the time within it.

    Args:
        budget: the request's.
        timeout: seconds after which the server ends any job.
        before: seconds that earlier executions of the job took.
        best: the best reward met so far.
        best_at: the evaluation that made it.
        start: of this execution's search, by the monotonic clock.
    """

    budget: Budget
    timeout: float
    before: float = 0.0
    best: float | None = None
    best_at: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds that the job has taken, over all executions."""
        return self.before + time.monotonic() - self.start

    @property
    def overdue(self) -> bool:
        """Whether the job has run as long as the server allows any."""
        return self.elapsed >= self.timeout

    def reached(self, around: Round[State]) -> StopReason | None:
        """Why to stop after this round, if there is a reason."""
        if self.overdue:
            return "deadline"
        if not around.state.best:
            return None  # a search must not end without a picture only because it is slow
        self._note_gain(around)
        if self._met_target():
            return "target_reward"
        if self._out_of_patience(around):
            return "patience"
        return "seconds" if self._out_of_seconds else None

    def reached_within(self, state: State | None) -> StopReason | None:
        """Why to leave a round for where the search stood before it; None there: nowhere yet.

        Of the limits those of time: what a round has found is known once it has ended.
        """
        if self.overdue:
            return "deadline"
        return "seconds" if state and state.best and self._out_of_seconds else None

    @property
    def _out_of_seconds(self) -> bool:
        return self.budget.seconds is not None and self.elapsed >= self.budget.seconds

    def _note_gain(self, around: Round[State]) -> None:
        for candidate in around.candidates:
            if self.best is None or candidate.reward > self.best:
                self.best, self.best_at = candidate.reward, candidate.nfe

    def _met_target(self) -> bool:
        target = self.budget.target_reward
        return target is not None and self.best is not None and self.best >= target

    def _out_of_patience(self, around: Round[State]) -> bool:
        patience = self.budget.patience
        if patience is None or self.best is None:
            return False
        return around.state.ledger.nfe_spent - self.best_at >= patience
