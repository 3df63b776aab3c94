"""What can go wrong in a search, by name."""

from collections.abc import Iterable
from difflib import get_close_matches


class SamplingError(Exception):
    """The root of every error that this package raises on purpose."""


class BudgetExceededError(SamplingError):
    """An evaluation was asked for that the budget does not cover; it was not made.

    Args:
        needed: NFE asked for.
        left: NFE that the ledger had left.
    """

    def __init__(self, needed: int, left: int) -> None:
        super().__init__(f"{needed} evaluations were asked for, and the budget has {left} left")
        self.needed = needed
        self.left = left


class BudgetTooSmallError(SamplingError, ValueError):
    """The budget is below what the strategy needs to end with a result.

    Args:
        strategy: its name in the registry.
        needed: the smallest NFE that works with these parameters and this sampler.
        given: the NFE of the problem.
    """

    def __init__(self, strategy: str, needed: int, given: int) -> None:
        super().__init__(f"{strategy} needs at least {needed} NFE with these settings; the budget is {given}")
        self.strategy = strategy
        self.needed = needed
        self.given = given


class NotExtendableError(SamplingError):
    """The strategy lays its whole budget out beforehand: a search that has ended cannot go on.

    Args:
        strategy: its name in the registry.
    """

    def __init__(self, strategy: str) -> None:
        super().__init__(f"a search by {strategy} cannot go on: it lays its whole budget out beforehand")
        self.strategy = strategy


class RewardError(SamplingError):
    """A reward is NaN or infinite, or their number is wrong. It is never turned into a number that sorts."""


class CheckpointError(SamplingError, ValueError):
    """A checkpoint is not one of ours, or of a version that this program does not read."""


class UnknownNameError(SamplingError, ValueError):
    """A name is not in one of the closed tables.

    Args:
        kind: what the table holds, for instance "kernel".
        name: what was asked for.
        known: the names that the table has.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        near = get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {kind} is called {name!r}{hint} Known: {', '.join(self.known)}")
