"""OpenAI's image route."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from app import images, sse
from app.bodies import posted_json
from app.callers import REFUSALS, CallerDep, tell
from app.problems import documented
from app.routes.generations import IdempotencyKey
from app.services import ServicesDep

router = APIRouter(prefix="/v1/images/generations", tags=["openai"], responses=REFUSALS)

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIImageRequest"}}},
    }
}


@router.post(
    "",
    response_model=images.ImagesResponse,
    openapi_extra=BODY,
    responses={200: {"content": {sse.MEDIA_TYPE: {}}}}
    | documented(
        "malformed_json",
        "artifact_not_found",
        "body_too_large",
        "unsupported_media_type",
        "invalid_request",
        "idempotency_mismatch",
        "generation_failed",
        "rate_limited",
        "nfe_exhausted",
        "too_many_generations",
        "queue_full",
        "redis_unavailable",
        "storage_unavailable",
    ),
)
async def generate(
    request: Request, services: ServicesDep, caller: CallerDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Search pictures as OpenAI's clients ask for them; the answer comes when the search has ended."""
    payload = await posted_json(request, services.settings.max_body_bytes)
    asked, generation, submitted = await images.submit(services, caller, payload, idempotency_key)
    request.state.generation = generation.id
    tell(request, *submitted.allowances)
    headers = {"Location": generation.urls.get}
    if submitted.repeated:
        headers["Idempotency-Replayed"] = "true"
    if asked.stream:
        events = images.streamed(services, caller, generation, asked.partials)
        return StreamingResponse(events, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS | headers)
    answer = await images.answered(request, services, caller, generation)
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
