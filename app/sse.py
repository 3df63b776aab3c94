"""Server-sent events (WHATWG HTML, section 9.2)."""

import logging
from collections.abc import AsyncIterator

from redis.exceptions import RedisError

from app.store import Entry, Store

logger = logging.getLogger("rollover.app")

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = ": waiting\n\n"


def message(entry: Entry) -> str:
    """Write one event; its id is what a client sends back as `Last-Event-ID`."""
    return f"id: {entry.seq}\nevent: {entry.type}\ndata: {entry.text}\n\n"


async def stream(store: Store, generation: str, after: int) -> AsyncIterator[str]:
    """Write the events of a job from `after` on as they come, and a comment in each quiet interval."""
    try:
        async for batch in store.follow(generation, after):
            yield "".join(map(message, batch)) or KEEP_ALIVE
    except RedisError as error:
        # The headers are sent: ending the stream makes the client come back with its Last-Event-ID.
        logger.warning("Event stream of %s ended early: %s", generation, error)
