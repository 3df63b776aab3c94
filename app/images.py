"""Generations in OpenAI's shape: one answer with the pictures, or a stream of previews and pictures."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import jobs
from app.access import Caller
from app.enqueue import Submitted
from app.problems import ProblemError
from app.services import Services
from app.store import Entry
from contracts.errors import ErrorCode, InvalidRequestError
from contracts.jobs import Generation
from contracts.keys import image_path, preview_path
from contracts.openai import ImageRequest, as_openai, translated

logger = logging.getLogger("rollover.app")
AWAY = (RedisConnectionError, RedisTimeoutError)
PATIENCE = 60.0
"""Seconds without an answer after which Redis counts as away; workers try as long to store a picture."""
AGAIN_SECONDS = 0.5
ABANDON_SECONDS = 2.0
"""Time to cancel what a server that stops leaves, within that in which service managers expect the end."""


class ImageData(BaseModel):
    """One picture."""

    b64_json: str
    revised_prompt: None = None


class ImagesResponse(BaseModel):
    """OpenAI's answer, and the generation that made it."""

    created: int
    data: list[ImageData]
    output_format: str
    size: str
    generation: str


async def submit(
    services: Services, caller: Caller, payload: object, key: str | None
) -> tuple[ImageRequest, Generation, Submitted]:
    """Queue the generation that an OpenAI request asks for; it is held unless a key can ask for it again.

    Raises:
        InvalidRequestError: it cannot be run; the problems point at OpenAI's fields.
        ProblemError: as for any submission.
    """
    request, body = translated(payload)
    try:
        generation, submitted = await jobs.submit(services, caller, body, key)
    except InvalidRequestError as error:
        raise InvalidRequestError([as_openai(problem) for problem in error.problems]) from None
    if key is None:
        services.held[generation.id] = caller
    return request, generation, submitted


async def answered(
    request: Request, services: Services, caller: Caller, generation: Generation
) -> ImagesResponse:
    """Wait for the end of a generation; where that is cut off, cancel it if it is held.

    Raises:
        ProblemError: it failed.
        RedisError: Redis is away for too long.
    """
    following = asyncio.ensure_future(follow_to_end(services, generation.id))
    leaving = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        following.cancel()
        leaving.cancel()
        await asyncio.shield(abandon(services, generation.id))
    ended = await jobs.get(services, caller, generation.id)
    return ImagesResponse(
        created=int(ended.created_at.timestamp()),
        data=[ImageData(b64_json=picture) for picture in await pictures(services, ended)],
        generation=ended.id,
        **shape(ended),
    )


async def streamed(
    services: Services, caller: Caller, generation: Generation, partials: int
) -> AsyncIterator[str]:
    """Write OpenAI's events: previews as the search passes equal parts of its budget, then each picture."""
    sent, nfe = 0, 0
    try:
        async for batch in followed(services, generation.id):
            for entry in batch:
                nfe = spent_at(entry, nfe)
                part = (sent + 1) * generation.progress.nfe_budget / (partials + 1)
                due = entry.type == "level" and sent < partials and nfe >= part
                if due and (picture := await preview(services, generation, entry)):
                    yield event("partial_image", generation, picture, partial_image_index=sent)
                    sent += 1
            if not batch:
                yield ": waiting\n\n"
        for picture in await pictures(services, await jobs.get(services, caller, generation.id)):
            yield event("completed", generation, picture)
    except ProblemError as error:
        yield failure(error.code, error.detail)
    except RedisError as error:
        logger.warning("The stream of %s ended early: %s", generation.id, error)
        yield failure("redis_unavailable", "The server's store cannot be reached.")
    finally:
        await asyncio.shield(abandon(services, generation.id))


def failure(code: ErrorCode, detail: str) -> str:
    """Write the event for which OpenAI's client raises: the headers of a stream are sent already."""
    problem = {"message": detail, "type": f"urn:rollover:problem:{code}", "code": code}
    return f"event: error\ndata: {json.dumps({'type': 'error', 'error': problem})}\n\n"


def spent_at(entry: Entry, nfe: int) -> int:
    """Return the NFE spent after an event."""
    return json.loads(entry.text)["nfe"] if entry.type == "candidate" else nfe


async def preview(services: Services, generation: Generation, entry: Entry) -> str | None:
    """Return the picture of a level event; None where it cannot be read, for which no search ends."""
    try:
        content = await services.artifacts.read(preview_path(generation.id, entry.seq))
    except ProblemError as error:
        logger.warning("A preview of %s is left out: %s", generation.id, error)
        return None
    return None if content is None else base64.b64encode(content).decode()


async def pictures(services: Services, ended: Generation) -> list[str]:
    """Return the final pictures, best first.

    Raises:
        ProblemError: there are none, because the generation failed or was canceled.
    """
    if ended.result is None or ended.error is not None:
        reason = f"{ended.error.detail} ({ended.error.code})" if ended.error else f"It is {ended.status}."
        raise ProblemError("generation_failed", f"Generation {ended.id} has no picture: {reason}")
    found: list[str] = []
    for index in range(len(ended.result.images)):
        content = await services.artifacts.read(image_path(ended.id, index, ended.request.output_format))
        if content is None:
            raise ProblemError("artifact_not_found", "The artifact store does not have this picture.")
        found.append(base64.b64encode(content).decode())
    return found


def shape(generation: Generation) -> dict[str, Any]:
    """Return what OpenAI says of every picture."""
    request = generation.request
    return {"output_format": request.output_format, "size": f"{request.width}x{request.height}"}


def event(kind: str, generation: Generation, picture: str, **more: int) -> str:
    """Write one of OpenAI's server-sent events; a preview is always a PNG."""
    name = f"image_generation.{kind}"
    facts = {
        "type": name,
        "b64_json": picture,
        "created_at": int(generation.created_at.timestamp()),
        "background": "auto",
        "quality": "auto",
        "generation": generation.id,
        **shape(generation),
        **({"output_format": "png"} if kind == "partial_image" else {}),
        **more,
    }
    return f"event: {name}\ndata: {json.dumps(facts)}\n\n"


async def follow_to_end(services: Services, generation: str) -> None:
    """Return when a generation has ended; raise as `followed` does."""
    async for _batch in followed(services, generation):
        continue


async def followed(services: Services, generation: str) -> AsyncIterator[list[Entry]]:
    """Yield the events of a generation to its end, over times when Redis is away.

    Raises:
        RedisError: it is away for more than `PATIENCE`, or refuses.
    """
    after, heard = 0, time.monotonic()
    while True:
        try:
            async for batch in services.store.follow(generation, after):
                yield batch
                after, heard = batch[-1].seq if batch else after, time.monotonic()
        except AWAY:
            if time.monotonic() - heard > PATIENCE:
                raise
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            services.held.pop(generation, None)
            return


async def left(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def abandon(services: Services, generation: str) -> None:
    """Cancel a generation that is held and that nobody waits for any more, unless it has ended."""
    caller = services.held.get(generation)
    if caller is None:
        return
    try:
        await jobs.cancel(services, caller, generation)
    except ProblemError:
        return  # it ended in this moment
    except RedisError as error:
        logger.warning("%s goes on, although nobody waits for it: %s", generation, error)
    finally:
        services.held.pop(generation, None)


async def abandon_all(services: Services) -> None:
    """Cancel what clients wait for when the server stops, which takes their connections away."""
    leaving = [asyncio.create_task(abandon(services, generation)) for generation in services.held]
    if leaving:
        await asyncio.wait(leaving, timeout=ABANDON_SECONDS)
