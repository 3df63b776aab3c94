"""The baseline that a submission may ask for beside its search: best-of-n, as a request of its own."""

from contracts.requests import Budget, ResolvedRequest
from contracts.search import OWN_WAY, BestOfNParams


def baseline_of(request: ResolvedRequest, nfe: int | None = None) -> ResolvedRequest:
    """Return plain best-of-n with the model, rewards, seed and steps of a search, its way and guidance aside.

    Args:
        request: of the search.
        nfe: what the search spent; by default its budget. One run is made in any case.
    """
    steps = request.sampler.steps
    spent = request.budget.nfe if nfe is None else nfe
    return request.model_copy(
        update={
            "search": BestOfNParams(steps=steps),
            "sampler": request.sampler.model_copy(update={**OWN_WAY, "reward_guidance": 0.0}),
            "budget": Budget(nfe=max(spent // steps, 1) * steps),
            "num_images": 1,
            "baseline": False,
        }
    )


def reserved_nfe(request: ResolvedRequest) -> int:
    """Return the most that a job can spend: the budget of its search, and its baseline where it has one."""
    return request.budget.nfe + (baseline_of(request).budget.nfe if request.baseline else 0)
