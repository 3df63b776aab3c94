"""The search as a generator of rounds. The caller owns progress, checkpoints and stopping."""

from collections.abc import Iterator
from typing import TypeVar

import torch

from sampling.events import Round
from sampling.problem import Problem
from sampling.state import State
from sampling.strategy import Strategy, check_budget

S = TypeVar("S", bound=State)


def search(problem: Problem, strategy: Strategy[S], state: S | None = None) -> Iterator[Round[S]]:
    """Run a strategy, round by round.

    Stop early by not asking for more: ``round.state.best`` is a valid result at every moment from the first
    scored candidate on. To go on after a crash, give the last saved state.

    Args:
        problem: what to search.
        strategy: how.
        state: of an earlier round of the same problem and strategy; None starts anew.

    Raises:
        BudgetTooSmallError: at the first round, with the NFE that the strategy needs.
        RewardError: for a reward that is not a finite number.
    """
    if state is None:
        check_budget(strategy, problem)
        # Not around the yield: the caller must not find itself in inference mode.
        with torch.inference_mode():
            first = strategy.init(problem)
        yield first
        state = first.state
    while not strategy.finished(problem, state):
        with torch.inference_mode():
            following = strategy.step(problem, state)
        yield following
        state = following.state
