"""The log's line for each request, with its id and whose key it came with."""

import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.logs import bound

HEADER = "X-Request-Id"
GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Ids that are taken over from a client or a proxy; any other might forge a line of the log."""
logger = logging.getLogger("rollover.access")


class RequestLog:
    """ASGI middleware that gives every request an id, answers with it, and logs the request."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a stream is logged when it begins."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if GIVEN.fullmatch(given) else secrets.token_hex(8)

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
                seconds = time.perf_counter() - began
                facts = facts_of(scope, request_id, message["status"], seconds)
                logger.info("request", extra={"facts": facts})
            await send(message)

        with bound(request=request_id):
            try:
                await self.app(scope, receive, logged)
            except Exception:
                # A defect in the midst of an answer: there is no other to give.
                seconds = time.perf_counter() - began
                logger.exception("request", extra={"facts": facts_of(scope, request_id, 500, seconds)})
                raise


def facts_of(scope: Scope, request_id: str, status: int, seconds: float) -> dict[str, Any]:
    """Return what is logged of a request: never its body, its query or its key's secret."""
    state = scope.get("state", {})
    facts = {
        "request": request_id,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "seconds": round(seconds, 4),
        "key": state.get("key"),
        "generation": scope.get("path_params", {}).get("generation") or state.get("generation"),
    }
    return {name: value for name, value in facts.items() if value is not None}
