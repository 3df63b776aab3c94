"""What it is to extend a generation: which ones can be, for how much, and the request of the new one."""

from pydantic import Field, ValidationError

from contracts.errors import FieldProblem, InvalidRequestError
from contracts.jobs import Record
from contracts.parsing import problem_of, told
from contracts.requests import Budget, Caps, ResolvedRequest
from contracts.resolution import cap_problems
from contracts.search import BestOfNParams, RbfParams, SearchParams, Strict, ZeroOrderParams
from contracts.timed import laid_out


class ExtensionRequest(Strict):
    """The body of `POST /v1/generations/{id}/extend`."""

    budget: Budget = Field(description="of the extension alone; limits of the earlier search hold no more")


class NotExtendableError(Exception):
    """A generation that succeeded and yet cannot be extended, and why."""


def parse_extension(payload: object) -> ExtensionRequest:
    """Check the shape of a posted extension.

    Raises:
        InvalidRequestError: with one problem for each field that cannot be used.
    """
    try:
        return ExtensionRequest.model_validate(payload)
    except ValidationError as error:
        problems = [problem_of(each, payload, ExtensionRequest) for each in told(error)]
        raise InvalidRequestError(problems) from None


def extension_of(
    parent: Record, asked: ExtensionRequest, caps: Caps, nfe_per_second: float | None = None
) -> ResolvedRequest:
    """Return the request of a generation that goes on from the end of another.

    Args:
        parent: one that succeeded.
        asked: the budget of the new one.
        caps: what the server allows in one submission.
        nfe_per_second: of its model, for a budget of time alone; None: not known.

    Raises:
        NotExtendableError: the parent's search has no use for more, or its state is not kept.
        InvalidRequestError: the budget is too large, or pays for nothing.
    """
    planned = parent.nfe_before + parent.request.budget.nfe
    if parent.checkpoint is None:
        raise NotExtendableError("The state of its search is not kept.")
    if reason := obstacle(parent.request.search, planned):
        raise NotExtendableError(reason)
    search = continued(parent.request.search, planned)
    needed = max(planned - parent.checkpoint.nfe, least(search))
    budget = laid_out(asked.budget, nfe_per_second, needed, caps.max_nfe)
    request = parent.request.model_copy(update={"budget": budget, "search": search, "baseline": False})
    problems = cap_problems(request, caps) or least_problems(budget.nfe, needed)
    if problems:
        raise InvalidRequestError(problems)
    return request


def obstacle(search: SearchParams, planned: int) -> str | None:
    """Say why a search that was given `planned` NFE cannot go on; None where it can."""
    if isinstance(search, BestOfNParams | RbfParams):
        return None
    if isinstance(search, ZeroOrderParams):
        runs = planned // (search.steps or 1)
        if search.finish_steps == 0 and runs % search.neighbours == 0:
            return None
        return (
            "Strategy 'zero_order' goes on only without finish steps and after whole generations of "
            f"{search.neighbours} runs; this search has {search.finish_steps} and {runs} runs."
        )
    return f"Strategy '{search.strategy}' lays its whole budget out beforehand."


def continued(search: SearchParams, planned: int) -> SearchParams:
    """Return the search with the plan that it has begun with."""
    if isinstance(search, RbfParams) and search.plan_nfe is None:
        return search.model_copy(update={"plan_nfe": planned})
    return search


def least(search: SearchParams) -> int:
    """Return the least NFE that get a search further which has spent its budget."""
    if isinstance(search, RbfParams):
        return search.chains + 1 if search.upstream else search.finish + 1
    return (search.steps or 1) if isinstance(search, BestOfNParams | ZeroOrderParams) else 1


def least_problems(nfe: int, needed: int) -> list[FieldProblem]:
    """An extension pays for what is left of the earlier plan, and for something more."""
    if nfe >= needed:
        return []
    return [FieldProblem(pointer="/budget/nfe", detail=f"Must be at least {needed} to get this search on.")]
