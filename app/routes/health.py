"""Whether the server lives, and whether it can work."""

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from app import metrics
from app.callers import REFUSALS, caller_of
from app.problems import documented, problem_response
from app.readiness import reasons_not_ready
from app.services import ServicesDep

router = APIRouter(tags=["health"])
METRICS_TYPE = "text/plain"


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


# Monitors and load balancers often ask by HEAD.
@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process lives; nothing else is looked at."""
    return Health()


@router.head("/readyz", response_model=Health, include_in_schema=False)
@router.get("/readyz", response_model=Health, responses=documented("not_ready"))
async def readyz(services: ServicesDep) -> Health | Response:
    """Say whether generations can run now, and if not, why."""
    reasons = await reasons_not_ready(services)
    return problem_response("not_ready", " ".join(reasons), reasons=reasons) if reasons else Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses=REFUSALS | {200: {"content": {METRICS_TYPE: {"schema": {"type": "string"}}}}},
    dependencies=[Depends(caller_of)],
)
async def prometheus(request: Request, services: ServicesDep) -> Response:
    """Tell Prometheus of this process's requests and of the queue."""
    text = await metrics.exposition(services, request.app.state.metrics)
    return Response(text, media_type=METRICS_TYPE)
