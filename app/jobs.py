"""What can be done with generations, apart from HTTP."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable
from typing import cast

from redis.exceptions import RedisError

from app.access import Caller
from app.enqueue import Submitted, fingerprint
from app.paces import accepted, nfe_per_second
from app.problems import ProblemError
from app.services import Services
from app.store import Placed
from contracts.events import Canceled
from contracts.extension import NotExtendableError, extension_of, parse_extension
from contracts.jobs import (
    FINAL_STATUSES,
    ID_PATTERN,
    Generation,
    GenerationList,
    Record,
    Status,
    document,
    hash_fields,
    now,
)
from contracts.keys import checkpoint_path, input_path
from contracts.quotes import Quote, quote
from contracts.requests import ResolvedRequest
from contracts.timed import timed

logger = logging.getLogger("rollover.jobs")

SCAN_CHUNK = 101
SCAN_LIMIT = 1000
UNENDED = (Status.QUEUED, Status.RUNNING)


async def submit(
    services: Services, caller: Caller, payload: object, key: str | None
) -> tuple[Generation, Submitted]:
    """Accept a submission and queue it; return its document and how it was accepted.

    Raises:
        InvalidRequestError: it cannot be run.
        ProblemError: the queue is full, the key came with another body, or a limit of the caller is met.
    """
    resolved = await accepted(services, caller, payload)
    body = fingerprint(payload)
    text = posted_image(payload)
    if text is None:
        record = Record.new(resolved, key, caller.owner)
        stored = await asyncio.to_thread(services.enqueuer.submit, record, body, caller)
        return await get(services, caller, stored.id), stored
    if key and (earlier := await services.store.earlier(key, caller.owner, body)):
        return await get(services, caller, earlier), Submitted(earlier, repeated=True)
    image = await services.inputs.read(text)
    record = Record.new(resolved.model_copy(update={"image": image.facts}), key, caller.owner)
    stored = await with_files(
        services, caller, record, body, services.artifacts.write(input_path(record.id), image.png)
    )
    return await get(services, caller, stored.id), stored


def posted_image(payload: object) -> str | None:
    """Return the image of a submission that was accepted, as it was posted."""
    return cast("dict[str, str | None]", payload).get("image")


async def with_files(
    services: Services, caller: Caller, record: Record, body: str, storing: Awaitable[None]
) -> Submitted:
    """Store the files that a job begins with, then the job; without the job the files are removed."""
    try:
        await storing
        stored = await asyncio.to_thread(services.enqueuer.submit, record, body, caller)
    except ProblemError:
        # Not where Redis failed: it may have taken the job all the same.
        await discard(services, record)
        raise
    if stored.repeated:
        await discard(services, record)
    return stored


async def extend(
    services: Services, caller: Caller, generation: str, payload: object, key: str | None
) -> tuple[Generation, Submitted]:
    """Queue a job that goes on from the end of another; return its document and how it was accepted.

    It has a copy of the other's state, so that it is run whatever becomes of that.

    Raises:
        InvalidRequestError: the budget cannot be used.
        ProblemError: there is no such job, or it cannot be extended; and as for any submission.
    """
    body = fingerprint({"extend": generation, "body": payload})
    if key and (earlier := await services.store.earlier(key, caller.owner, body)):
        return await get(services, caller, earlier), Submitted(earlier, repeated=True)
    parent = await existing(services, caller, generation)
    if parent.status is not Status.SUCCEEDED:
        raise wrong_state(parent.status, "Only a generation that succeeded can be extended.")
    resolved = await extension(services, caller, parent, payload)
    record = Record.new(resolved, key, caller.owner).extending(parent)
    stored = await with_files(services, caller, record, body, inherit(services, parent, record))
    return await get(services, caller, stored.id), stored


async def inherit(services: Services, parent: Record, record: Record) -> None:
    """Give a job that is to go on from another a state of its own to go on from, and its image."""
    if not await services.artifacts.copy(state_path(parent), state_path(record)):
        raise ProblemError("not_extendable", "The state of its search is not kept any more.")
    if record.request.image is None:
        return
    if not await services.artifacts.copy(input_path(parent.id), input_path(record.id)):
        raise ProblemError("not_extendable", "Its image is not kept any more.")


async def discard(services: Services, record: Record) -> None:
    """Remove what was stored for a job that did not come to be; a store that refuses changes no answer."""
    try:
        await services.artifacts.remove(record.id)
    except ProblemError as error:
        logger.warning("files of %s are left, which is no job: %s", record.id, error)


async def extension(services: Services, caller: Caller, parent: Record, payload: object) -> ResolvedRequest:
    """Return the request of a job that goes on from another."""
    asked, request = parse_extension(payload), parent.request
    if request.model not in services.settings.models:
        raise ProblemError(
            "not_extendable", f"This server does not run its model '{request.model}' any more."
        )
    rate = None
    if timed(asked.budget):
        rate = await nfe_per_second(services, request.model, (request.width, request.height))
    try:
        return extension_of(parent, asked, caller.caps(services.settings.caps), rate)
    except NotExtendableError as error:
        raise ProblemError("not_extendable", str(error)) from error


def state_path(record: Record) -> str:
    """Return where the state of a job's search lies, which it has."""
    assert record.checkpoint is not None  # noqa: S101 (the callers look)
    return checkpoint_path(record.id, record.checkpoint.attempt, record.checkpoint.nfe)


async def quoted(services: Services, caller: Caller, payload: object) -> Quote:
    """Say what a submission would do and take now.

    Raises:
        InvalidRequestError: it could not be run.
    """
    resolved = await accepted(services, caller, payload)
    if (text := posted_image(payload)) is not None:
        image = await services.inputs.read(text)
        resolved = resolved.model_copy(update={"image": image.facts})
    rate, pace, position, workers, running = await asyncio.gather(
        nfe_per_second(services, resolved.model, (resolved.width, resolved.height)),
        services.store.pace(resolved.model),
        services.store.ahead(caller.owner, resolved),
        services.store.workers(),
        services.store.running(resolved.model),
    )
    states = Counter(worker.state.value for worker in workers if worker.model == resolved.model)
    return quote(resolved, rate, pace, position, states, running)


async def existing(services: Services, caller: Caller, generation: str) -> Record:
    """Return the record of one of the caller's jobs; raise as `placed` does."""
    return (await placed(services, caller, generation)).record


async def placed(services: Services, caller: Caller, generation: str) -> Placed:
    """Return one of the caller's jobs, with its place in the queue.

    Raises:
        ProblemError: the caller has none with this id, whether or not another has.
    """
    found = await services.store.placed(generation) if re.match(ID_PATTERN, generation) else None
    if found is None or found.record.owner != caller.owner:
        raise ProblemError("generation_not_found", "No generation has this id.")
    return found


async def get(services: Services, caller: Caller, generation: str) -> Generation:
    """Return a job's document."""
    found = await placed(services, caller, generation)
    return document(found.record, found.ahead, keep=services.settings.keep)


async def wait(services: Services, caller: Caller, submitted: Generation, seconds: float) -> Generation:
    """Return a job's document once it has ended, or as it is after `seconds`."""
    if not submitted.status.final:
        try:
            async with asyncio.timeout(seconds):
                async for _batch in services.store.follow(submitted.id, after=0):
                    continue
        except TimeoutError:
            pass
        except RedisError:
            # The job is accepted all the same; the client will ask again.
            return submitted
    return await get(services, caller, submitted.id)


async def listed(
    services: Services, caller: Caller, limit: int, status: Status | None, cursor: str | None
) -> GenerationList:
    """Return the caller's jobs from the newest down, those older than `cursor` if it is given.

    A page may hold fewer than `limit`, even none, and still have a `next_cursor`: a search for a rare
    status looks at a limited number of jobs at a time.
    """
    chosen: list[str] = []
    for _ in range(0, SCAN_LIMIT, SCAN_CHUNK):
        ids = await services.store.newest(caller.owner, SCAN_CHUNK, cursor)
        for generation, found in zip(ids, await services.store.statuses(ids), strict=True):
            if len(chosen) == limit:
                return await page(services, chosen, cursor)
            cursor = generation
            if found is not None and status in (None, found):
                chosen.append(generation)
        if len(ids) < SCAN_CHUNK:
            return await page(services, chosen, None)
    return await page(services, chosen, cursor)


async def page(services: Services, chosen: list[str], next_cursor: str | None) -> GenerationList:
    """Build one page of a list."""
    keep = services.settings.keep
    found = await services.store.all_placed(chosen) if chosen else []
    data = [document(record, ahead, keep=keep) for record, ahead in found]
    return GenerationList(data=data, next_cursor=next_cursor)


async def cancel(services: Services, caller: Caller, generation: str) -> Generation:
    """Cancel a job: at once where it was never begun, within one step of the search where it runs.

    One that a worker gave back has something to show and something to pay: the worker that takes it next
    ends it, with the best so far as its result.

    A write whose reply is lost is sent again, and finds the job canceled by itself: that is no refusal. One
    that was canceled before may be in the line still, where that cancel was cut off.

    Raises:
        ProblemError: there is no such job, or it had ended.
    """
    record = await existing(services, caller, generation)
    _, status = await services.store.write(
        generation,
        allowed=[Status.QUEUED],
        status=Status.CANCELED,
        fence=0,
        fields=hash_fields(cancel_requested=True, completed_at=now()),
        events=[Canceled(nfe_spent=0)],
    )
    if status in UNENDED:
        _, status = await services.store.write(
            generation, allowed=UNENDED, fields=hash_fields(cancel_requested=True)
        )
    if status == Status.CANCELED:
        await services.store.withdraw(record)
    if record.status.final or status not in (*UNENDED, Status.CANCELED):
        raise wrong_state(status, "An ended generation cannot be canceled.")
    return await get(services, caller, generation)


async def delete(services: Services, caller: Caller, generation: str) -> None:
    """Remove an ended job with its events and artifacts.

    Raises:
        ProblemError: there is no such job, it has not ended, or the artifact store is away.
    """
    record = await existing(services, caller, generation)
    if not record.status.final:
        raise wrong_state(record.status, "Cancel the generation before deleting it.")
    await forget(services, record)


async def forget(services: Services, record: Record) -> None:
    """Remove an ended job and all that belongs to it.

    Artifacts go first: if that fails half-way, the job is still there and can be removed again.

    Raises:
        ProblemError: the artifact store is away.
    """
    if record.owner:
        await asyncio.to_thread(services.enqueuer.settle, record.owner)
    await services.artifacts.remove(record.id)
    await services.store.delete(record, FINAL_STATUSES)


def wrong_state(status: str, detail: str) -> ProblemError:
    """Build the error for what a job's status does not allow."""
    return ProblemError("wrong_state", f"{detail} Its status is `{status}`.", generation_status=status)
