"""Submit, extend, read, list, cancel and delete generations."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from app import jobs
from app.access import Caller
from app.bodies import posted_json
from app.callers import REFUSALS, CallerDep, tell
from app.conditional import conditional
from app.enqueue import Submitted
from app.preferences import preferred_wait
from app.problems import documented
from app.services import Services, ServicesDep
from contracts.jobs import ID_PATTERN, Generation, GenerationList, Status

router = APIRouter(prefix="/v1/generations", tags=["generations"], responses=REFUSALS)


def posted(model: str) -> dict[str, Any]:
    """Describe a body that the route reads by hand, for OpenAPI."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


SUBMISSION = posted("GenerationRequest")
EXTENSION = posted("ExtensionRequest")


def answer(generation: Generation, status: int, headers: dict[str, str]) -> Response:
    """Answer with a job document; `Retry-After` says when to ask again while it has not ended."""
    retry = {} if generation.status.final else {"Retry-After": "1"}
    return Response(
        generation.model_dump_json(),
        status_code=status,
        media_type="application/json",
        headers={**retry, **headers},
    )


ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": Generation, "description": "ended within `Prefer: wait`"}
} | documented(
    "malformed_json",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "idempotency_mismatch",
    "rate_limited",
    "nfe_exhausted",
    "too_many_generations",
    "queue_full",
    "redis_unavailable",
    "storage_unavailable",
)
Prefer = Annotated[str, Header(description="`wait=N`: answer when ended, at most N (60) s")]
IdempotencyKey = Annotated[
    str | None, Header(pattern=r"^[\x21-\x7e]{1,255}$", description="repeats make no second job")
]


@router.post("", status_code=202, response_model=Generation, openapi_extra=SUBMISSION, responses=ACCEPTED)
async def submit(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    prefer: Prefer = "",
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a search; the answer names its place in `Location`."""
    settings = services.settings
    payload = await posted_json(request, settings.max_body_bytes, settings.image_room)
    accepted = await jobs.submit(services, caller, payload, idempotency_key)
    return await queued(request, services, caller, accepted, prefer)


async def queued(
    request: Request,
    services: Services,
    caller: Caller,
    accepted: tuple[Generation, Submitted],
    prefer: str,
) -> Response:
    """Answer with a job that was accepted, when it has ended if that is preferred."""
    generation, submitted = accepted
    headers = {"Location": generation.urls.get}
    request.state.generation = generation.id
    tell(request, *submitted.allowances)
    if submitted.repeated:
        headers["Idempotency-Replayed"] = "true"
    if seconds := preferred_wait(prefer):
        generation = await jobs.wait(services, caller, generation, seconds)
        headers["Preference-Applied"] = f"wait={seconds}"
    ended = seconds and generation.status.final
    return answer(generation, 200 if ended else 202, headers)


@router.post(
    "/{generation}/extend",
    status_code=202,
    response_model=Generation,
    openapi_extra=EXTENSION,
    responses=ACCEPTED | documented("generation_not_found", "wrong_state", "not_extendable"),
)
async def extend(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    generation: str,
    prefer: Prefer = "",
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a search that goes on from the end of this one, with a budget of its own."""
    payload = await posted_json(request, services.settings.max_body_bytes)
    accepted = await jobs.extend(services, caller, generation, payload, idempotency_key)
    return await queued(request, services, caller, accepted, prefer)


@router.get("", responses=documented("invalid_request", "redis_unavailable"))
async def listed(
    services: ServicesDep,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Annotated[Status | None, Query()] = None,
    cursor: Annotated[str | None, Query(pattern=ID_PATTERN, description="`next_cursor` of a page")] = None,
) -> GenerationList:
    """List generations, newest first."""
    return await jobs.listed(services, caller, limit, status, cursor)


@router.get(
    "/{generation}",
    response_model=Generation,
    responses={304: {"description": "unchanged since `If-None-Match`"}}
    | documented("generation_not_found", "redis_unavailable"),
)
async def read(request: Request, services: ServicesDep, caller: CallerDep, generation: str) -> Response:
    """Return the job document."""
    found = await jobs.get(services, caller, generation)
    retry = {} if found.status.final else {"Retry-After": "1"}
    return conditional(
        request, found.model_dump_json().encode(), "application/json", {"Cache-Control": "no-cache", **retry}
    )


@router.post(
    "/{generation}/cancel",
    status_code=202,
    response_model=Generation,
    responses={200: {"model": Generation, "description": "it was never begun, and has ended now"}}
    | documented("generation_not_found", "wrong_state", "redis_unavailable"),
)
async def cancel(services: ServicesDep, caller: CallerDep, generation: str) -> Response:
    """Cancel; a search that was begun ends within its next step and keeps the best it has found."""
    canceled = await jobs.cancel(services, caller, generation)
    return answer(canceled, 200 if canceled.status.final else 202, {})


@router.delete(
    "/{generation}",
    status_code=204,
    responses=documented("generation_not_found", "wrong_state", "redis_unavailable", "storage_unavailable"),
)
async def delete(services: ServicesDep, caller: CallerDep, generation: str) -> None:
    """Remove an ended generation with its events, images and trace."""
    await jobs.delete(services, caller, generation)
