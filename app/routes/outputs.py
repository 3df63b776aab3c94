"""What a generation gives while it runs and afterwards: events, trace, images, previews."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import jobs, sse, trace
from app.callers import REFUSALS, CallerDep
from app.conditional import IMMUTABLE, conditional
from app.problems import ProblemError, documented
from app.services import ServicesDep
from contracts.jobs import Record
from contracts.keys import baseline_path, image_path, preview_path
from contracts.requests import MAX_IMAGES

router = APIRouter(prefix="/v1/generations/{generation}", tags=["outputs"], responses=REFUSALS)

Sequence = Annotated[int, Path(ge=1, le=2**53)]
After = Annotated[int | None, Query(ge=0, le=2**53, description="like `Last-Event-ID`, which wins")]
LastEventId = Annotated[int | None, Header(ge=0, le=2**53, description="go on after this event")]


PICTURE = {
    200: {"content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}}},
    304: {"description": "unchanged since `If-None-Match`"},
} | documented(
    "generation_not_found",
    "artifact_not_found",
    "invalid_request",
    "redis_unavailable",
    "storage_unavailable",
)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {sse.MEDIA_TYPE: {}}},
        204: {"description": "the client has every event already"},
    }
    | documented("generation_not_found", "invalid_request", "redis_unavailable"),
)
async def events(
    services: ServicesDep,
    caller: CallerDep,
    generation: str,
    last_event_id: LastEventId = None,
    after: After = None,
) -> Response:
    """Stream every event from the first, or from `Last-Event-ID`, to the final one.

    A number beyond the last event counts as the last event's.
    """
    record = await jobs.existing(services, caller, generation)
    start = last_event_id if last_event_id is not None else after or 0
    if record.status.final and start >= record.events:
        return Response(status_code=204)
    # No event lies beyond: streams that begin at one place wait for Redis together.
    messages = sse.stream(services.store, generation, min(start, record.events))
    return StreamingResponse(messages, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


@router.get(
    "/trace",
    response_class=Response,
    responses={
        200: {"content": {name: {} for name in trace.MEDIA_TYPES.values()}, "description": "by `Accept`"},
        304: {"description": "unchanged since `If-None-Match`"},
    }
    | documented("generation_not_found", "invalid_request", "redis_unavailable", "storage_unavailable"),
)
async def trace_of(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    generation: str,
    how: Annotated[trace.TraceFormat | None, Query(alias="format", description="wins over `Accept`")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Return every candidate evaluated so far."""
    record = await jobs.existing(services, caller, generation)
    chosen = how or trace.negotiated(accept)
    candidates = await trace.lines(services, record)
    content = await asyncio.to_thread(trace.written, candidates, record, chosen)
    return conditional(request, content, trace.MEDIA_TYPES[chosen], {"Vary": "Accept"})


# Downloads and previews of links often ask by HEAD first.
@router.head("/images/{index}", include_in_schema=False)
@router.get("/images/{index}", response_class=Response, responses=PICTURE)
async def image(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    generation: str,
    index: Annotated[int, Path(ge=0, lt=MAX_IMAGES)],
) -> Response:
    """Return a final image, from 0, best first."""
    record = await jobs.existing(services, caller, generation)
    if record.result is None or index >= len(record.result.images):
        raise ProblemError("artifact_not_found", f"The generation has no image {index}{until(record)}.")
    extension = record.request.output_format
    return await artifact(request, services, image_path(generation, index, extension), f"image/{extension}")


@router.head("/baseline", include_in_schema=False)
@router.get("/baseline", response_class=Response, responses=PICTURE)
async def baseline(request: Request, services: ServicesDep, caller: CallerDep, generation: str) -> Response:
    """Return the image that best-of-n found at the same NFE, where a baseline was asked for."""
    record = await jobs.existing(services, caller, generation)
    if record.result is None or record.result.baseline is None:
        raise ProblemError("artifact_not_found", f"The generation has no baseline{until(record)}.")
    extension = record.request.output_format
    return await artifact(request, services, baseline_path(generation, extension), f"image/{extension}")


@router.head("/previews/{seq}", include_in_schema=False)
@router.get(
    "/previews/{seq}",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}},
        304: {"description": "unchanged since `If-None-Match`"},
    }
    | documented(
        "generation_not_found",
        "artifact_not_found",
        "invalid_request",
        "redis_unavailable",
        "storage_unavailable",
    ),
)
async def preview(
    request: Request, services: ServicesDep, caller: CallerDep, generation: str, seq: Sequence
) -> Response:
    """Return the picture of a `level` event; a preview the event has not announced is not there."""
    record = await jobs.existing(services, caller, generation)
    if seq > record.events:
        raise ProblemError("artifact_not_found", f"The generation has no preview {seq}{until(record)}.")
    return await artifact(request, services, preview_path(generation, seq), "image/png")


def until(record: Record) -> str:
    """Return how long a generation lacks what it lacks."""
    return "" if record.status.final else " yet"


async def artifact(request: Request, services: ServicesDep, path: str, media_type: str) -> Response:
    """Answer with a file of the artifact store, which never changes."""
    content = await services.artifacts.read(path)
    if content is None:
        raise ProblemError("artifact_not_found", "The generation has no such picture.")
    return conditional(request, content, media_type, {"Cache-Control": IMMUTABLE})
