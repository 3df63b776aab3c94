"""What the routes share: opened once when the server starts, closed when it stops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.access import Access, Caller
from app.artifacts import Artifacts
from app.enqueue import Enqueuer
from app.inputs import Inputs
from app.store import Store, connect
from contracts.settings import Settings


@dataclass(frozen=True)
class Services:
    """The server's settings, its two stores, and its door.

    Attributes:
        held: callers by the generation whose answer they wait for, and whose id they do not know: without
            the answer nobody could ask for it.
    """

    settings: Settings
    store: Store
    enqueuer: Enqueuer
    artifacts: Artifacts
    inputs: Inputs
    access: Access
    held: dict[str, Caller] = field(default_factory=dict[str, Caller])


@asynccontextmanager
async def opened(settings: Settings, redis_url: str) -> AsyncIterator[Services]:
    """Open the stores for the life of the server; Redis may be away and come back."""
    redis = connect(redis_url)
    # A submission is not sent twice behind the client's back: it gets a 503 and decides itself.
    queueing = Redis.from_url(
        redis_url, socket_connect_timeout=2, socket_timeout=5, retry=Retry(NoBackoff(), 0)
    )
    artifacts = Artifacts(settings.artifacts)
    inputs = Inputs(settings.max_image_bytes, settings.max_image_pixels)
    try:
        yield Services(
            settings=settings,
            store=Store(redis),
            enqueuer=Enqueuer(queueing, settings),
            artifacts=artifacts,
            inputs=inputs,
            access=Access(redis, local=settings.local),
        )
    finally:
        inputs.close()
        artifacts.close()
        queueing.close()
        await redis.aclose()


async def services_of(request: Request) -> Services:
    """Return the services of the app that serves a request; `async`, or each request would take a thread."""
    return cast("Services", request.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]
