"""Query parameters that no route knows are refused, as unknown fields of a body are: a slip must not pass."""

from fastapi import Request

from app.callers import CallerDep
from app.problems import ProblemError
from contracts.errors import MOST_PROBLEMS, FieldProblem
from contracts.names import did_you_mean


async def only_known(request: Request, _caller: CallerDep) -> None:
    """Refuse a request with query parameters that OpenAPI does not have for its route.

    Raises:
        ProblemError: 422, with each of them.
    """
    if not request.query_params:
        return
    method = "get" if request.method == "HEAD" else request.method.lower()  # OpenAPI has no HEAD of ours
    described = request.app.openapi()["paths"][request.scope["route"].path][method]
    known = [each["name"] for each in described.get("parameters", []) if each["in"] == "query"]
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    problems = [
        FieldProblem(
            parameter=name[:100],
            detail=f"Unknown parameter '{name[:100]}'.{did_you_mean(name, known)}",
            allowed=sorted(known),
        )
        for name in unknown[:MOST_PROBLEMS]
    ]
    if problems:
        raise ProblemError("invalid_request", "A parameter cannot be used.", errors=problems)
