"""Every request's caller, found before the route runs, and the headers that tell it its limits."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Allowance, Caller, exhausted
from app.problems import documented
from app.services import ServicesDep

BEARER = HTTPBearer(auto_error=False, description="needed once the server has API keys")
REFUSALS = documented(
    "invalid_request", "unauthorized", "no_keys", "wrong_host", "rate_limited", "redis_unavailable"
)
"""What any route that needs a caller may answer."""


async def caller_of(
    request: Request,
    services: ServicesDep,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
) -> Caller:
    """Return who sends this request.

    Raises:
        ProblemError: 401, 403, or 429 for one request too many.
    """
    secret = bearer.credentials if bearer else None
    caller = await services.access.caller(secret, hostname(request.headers.get("host", "")))
    request.state.key = caller.owner
    if caller.requests:
        if caller.requests.left < 0:
            raise exhausted("rate_limited", caller.requests, "requests a minute")
        tell(request, caller.requests)
    return caller


def hostname(host: str) -> str | None:
    """Return the host that a `Host` header names, without its port; None for one that names none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


CallerDep = Annotated[Caller, Depends(caller_of)]


def tell(request: Request, *allowances: Allowance) -> None:
    """Have the answer, whatever it will be, say what is left of limits."""
    request.state.allowances = [*getattr(request.state, "allowances", []), *allowances]


class RateLimitHeaders:
    """ASGI middleware that writes what `tell` was told."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                for allowance in scope.get("state", {}).get("allowances", []):
                    headers = MutableHeaders(scope=message)
                    headers.append("RateLimit-Policy", allowance.policy)
                    headers.append("RateLimit", allowance.state)
            await send(message)

        await self.app(scope, receive, told)
