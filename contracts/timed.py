"""Budgets of time alone: how many NFE they are laid out for."""

from contracts.requests import Budget

SHARE = 0.9
"""Of the seconds: one that is laid out for all of them may well be cut short before its last steps."""


def timed(budget: Budget) -> bool:
    """Whether a budget, as posted, names seconds and leaves its NFE open."""
    return budget.seconds is not None and "nfe" not in budget.model_fields_set


def laid_out(budget: Budget, nfe_per_second: float | None, least: int, most: int) -> Budget:
    """Return a budget with the NFE that its seconds pay for, where these are left open.

    Args:
        budget: as posted.
        nfe_per_second: of the model; None: not known, and the NFE are those of a budget without seconds.
        least: the NFE that the search needs.
        most: the NFE that it may have, whatever it needs.
    """
    if budget.seconds is None or not timed(budget):
        return budget
    nfe = budget.nfe if nfe_per_second is None else int(min(SHARE * budget.seconds * nfe_per_second, most))
    return budget.model_copy(update={"nfe": min(max(nfe, least), most)})
