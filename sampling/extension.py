"""A search that has ended made ready to go on, where its strategy has a use for more than it was given."""

from dataclasses import replace
from typing import Protocol, TypeVar, cast, runtime_checkable

from sampling.errors import NotExtendableError
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.state import State
from sampling.strategy import Strategy

S = TypeVar("S", bound=State)


@runtime_checkable
class Extendable(Protocol[S]):
    """A strategy that goes on from where it ended: what it has decided does not depend on what is to come."""

    def extend(self, problem: Problem, state: S) -> S:
        """The state with what it may yet spend, problem.nfe less what its ledger has spent, shared out."""
        ...


def extended(problem: Problem, strategy: Strategy[S], state: S) -> S:
    """A state to be given to ``search``, which goes on with the budget of ``problem``.

    The NFE go on being counted where they were, and with them candidates being named; the other counts of
    the ledger begin at 0.

    Args:
        problem: as it was, but for ``nfe``: what was spent and what is to be, together. At least the budget
            that the state was made with, so that what was laid out can still be paid for.
        strategy: with the parameters that it had, and for rbf with ``plan_nfe`` the budget that it had.
        state: the last of a search that ended, by itself or because nobody asked for more.

    Raises:
        NotExtendableError: the strategy lays its whole budget out beforehand.
        ValueError: the new budget is smaller than the old one.
    """
    if not isinstance(strategy, Extendable):
        raise NotExtendableError(strategy.name)
    if problem.nfe < state.ledger.nfe_budget:
        raise ValueError(f"{problem.nfe} NFE are fewer than the {state.ledger.nfe_budget} of the beginning")
    ledger = Ledger(nfe_budget=problem.nfe, nfe_spent=state.ledger.nfe_spent)
    going_on = cast("Extendable[S]", strategy)
    return replace(going_on.extend(problem, state), ledger=ledger)
