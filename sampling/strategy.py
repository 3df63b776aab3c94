"""The interface of a search strategy: pure functions over a frozen state."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeVar

from sampling.errors import BudgetTooSmallError
from sampling.events import Round
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import State

S = TypeVar("S", bound=State)


class Strategy(Protocol[S]):
    """A frozen dataclass of parameters, and the algorithm over its own kind of State.

    ``init`` and ``step`` are pure: the same problem and state give the same round, on whatever machine, so a
    saved state goes on bit for bit. Each call is one round: one batched model call and, where something is
    scored, one batched reward call (more only where the problem's ``max_batch`` asks for it).
    """

    name: ClassVar[str]

    def minimum_nfe(self, sampler: Sampler) -> int:
        """The smallest budget that ends with a result.

        Raises:
            ValueError: if the strategy cannot work with this sampler at all.
        """
        ...

    def init(self, problem: Problem) -> Round[S]:
        """The first round."""
        ...

    def step(self, problem: Problem, state: S) -> Round[S]:
        """The next round of a search that has not finished."""
        ...

    def finished(self, problem: Problem, state: S) -> bool:
        """Whether the search is over."""
        ...

    def unspent(self, problem: Problem, state: S) -> str | None:
        """Why a finished search left NFE of its budget unspent; None where it left none."""
        ...


def check_budget(strategy: Strategy[S], problem: Problem) -> None:
    """BudgetTooSmallError, with the number needed, unless the budget lets the strategy end with a result."""
    needed = strategy.minimum_nfe(problem.sampler)
    if problem.nfe < needed:
        raise BudgetTooSmallError(strategy.name, needed, problem.nfe)


def check_least(parameters: object, least: Mapping[str, int]) -> None:
    """ValueError unless each parameter named is at least that."""
    for name, bound in least.items():
        if getattr(parameters, name) < bound:
            raise ValueError(f"{name} is at least {bound}, and was {getattr(parameters, name)}")


def even_shares(total: int, parts: int) -> tuple[int, ...]:
    """``total`` in ``parts`` that differ by at most one, the larger first."""
    each, more = divmod(total, parts)
    return tuple(each + (part < more) for part in range(parts))
