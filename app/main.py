"""The application: settings in, ASGI out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypedDict

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from app import problems
from app.callers import RateLimitHeaders
from app.expiry import sweep_forever
from app.images import abandon_all
from app.logs import RequestLog
from app.metrics import MeasureRequests, RequestMetrics
from app.openapi import openapi_of
from app.parameters import only_known
from app.routes import catalogue, generations, health, images, outputs, quotes, studio, webhooks
from app.services import Services, opened
from app.traces import TraceRequests
from contracts.settings import Settings
from contracts.tracing import wanted


class State(TypedDict):
    """What every request finds in `request.state`."""

    services: Services


def create_app(settings: Settings) -> FastAPI:
    """Build the application; it connects when it starts.

    Raises:
        ValueError: the settings name no Redis.
    """
    redis_url = settings.redis_url
    if redis_url is None:
        raise ValueError(
            "ROLLOVER_REDIS_URL is not set; `rollover serve` starts an embedded server and sets it"
        )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        async with opened(settings, redis_url) as services:
            sweeping = asyncio.create_task(sweep_forever(services))
            try:
                yield {"services": services}
            finally:
                await abandon_all(services)
                while not sweeping.done():  # a client that was about to time out can take one for its own
                    sweeping.cancel()
                    await asyncio.wait([sweeping], timeout=1)

    # FastAPI's own /docs loads its script from another server, which a GPU cluster may not reach.
    app = FastAPIOffline(
        title="Rollover",
        summary="Inference that searches: a prompt, a reward and a budget in; the best image found out.",
        version=installed_version(),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.openapi = partial(openapi_of, app, app.openapi, settings)
    problems.install(app)
    app.add_middleware(RateLimitHeaders)
    app.state.metrics = RequestMetrics()
    app.add_middleware(MeasureRequests, metrics=app.state.metrics)
    if wanted():
        app.add_middleware(TraceRequests)
    app.add_middleware(RequestLog)
    routers = [
        module.router
        for module in (generations, outputs, quotes, images, webhooks, catalogue, health, studio)
    ]
    described = list(app.router.routes)  # the OpenAPI document and its page
    for router in routers:
        strict = [Depends(only_known)] if router.prefix.startswith("/v1") else []
        app.include_router(router, dependencies=strict)
    app.router.routes.append(studio.files)
    app.state.routes = [*described, *(route for router in routers for route in router.routes), studio.files]
    return app


def installed_version() -> str:
    """Return the version of the installed package, 0.0.0 in a bare checkout."""
    try:
        return version("rollover")
    except PackageNotFoundError:
        return "0.0.0"
