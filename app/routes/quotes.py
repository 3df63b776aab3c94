"""What a submission would take, without running it."""

from fastapi import APIRouter, Request

from app import jobs
from app.bodies import posted_json
from app.callers import REFUSALS, CallerDep
from app.problems import documented
from app.routes.generations import SUBMISSION
from app.services import ServicesDep
from contracts.quotes import Quote

router = APIRouter(prefix="/v1/quotes", tags=["generations"], responses=REFUSALS)


@router.post(
    "",
    openapi_extra=SUBMISSION,
    responses=documented("malformed_json", "body_too_large", "unsupported_media_type", "invalid_request"),
)
async def quoted(request: Request, services: ServicesDep, caller: CallerDep) -> Quote:
    """Resolve a submission, lay out its budget, and estimate its time; nothing is queued or charged."""
    settings = services.settings
    payload = await posted_json(request, settings.max_body_bytes, settings.image_room)
    return await jobs.quoted(services, caller, payload)
