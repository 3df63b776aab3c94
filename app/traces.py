"""A span for each request, below the client's own where it sends a traceparent."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.tracing import span

ASKED_BY_MACHINES = {"/healthz", "/readyz", "/metrics"}
"""Paths that are asked again and again and tell nothing."""


class TraceRequests:
    """ASGI middleware that traces every request; a stream's span ends with it."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in ASKED_BY_MACHINES:
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("traceparent")
        with span("request", given, http__request__method=scope["method"]) as traced:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", None)
                    traced.note(http__route=route, http__response__status_code=message["status"])
                await send(message)

            await self.app(scope, receive, noted)
