"""Every error as a problem document (RFC 9457), and nothing else: no stack trace ever leaves the server."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import ERRORS, ErrorCode, FieldProblem, InvalidRequestError, Problem

logger = logging.getLogger("rollover.app")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "2"
REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
REDIS_CANNOT_WRITE = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")
"""Codes of error replies that redis-py has no exception for: the server runs, but takes no writes for now."""
READING = {"GET", "HEAD"}
"""What a folder of files takes, whose route does not say."""
ROUTING_CODES: Mapping[int, ErrorCode] = {404: "not_found", 405: "method_not_allowed"}


class ProblemError(Exception):
    """An error with a code of the table, to be answered as a problem document."""

    def __init__(self, code: ErrorCode, detail: str, **members: Any) -> None:  # noqa: ANN401 (members of Problem)
        super().__init__(detail)
        self.code: ErrorCode = code
        self.detail = detail
        self.members = members


def problem_response(
    code: ErrorCode,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401 (members of Problem)
) -> Response:
    """Build the answer for a code; a 503 always says when to try again."""
    kind = ERRORS[code]
    status = kind.status or 500
    problem = Problem(
        type=f"urn:rollover:problem:{code}",
        title=kind.title,
        status=status,
        detail=detail,
        code=code,
        **members,
    )
    retry = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**retry, **(headers or {})},
    )


def documented(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Describe the problems a route may answer, for OpenAPI."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = ERRORS[code]
        assert kind.status is not None  # noqa: S101 (a job's error is no response)
        entry = by_status.setdefault(
            kind.status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], f"`{code}`: {kind.meaning}"]))
    return by_status


def install(app: FastAPI) -> None:
    """Answer every exception with a problem document."""
    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(InvalidRequestError, on_invalid_request)
    app.add_exception_handler(RequestValidationError, on_invalid_parameters)
    app.add_exception_handler(HTTPException, on_routing)
    for away in REDIS_AWAY:
        app.add_exception_handler(away, on_redis_away)
    app.add_exception_handler(ResponseError, on_redis_error)
    app.add_middleware(Defects)


class Defects:
    """ASGI middleware that answers what no handler expects, before the others see the answer.

    Starlette calls a handler for `Exception` outside all of them, where requests have no id and no count.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a defect in the midst of an answer is raised."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            logger.exception("A request met a defect")
            response = await on_defect(Request(scope), error)
            await response(scope, receive, send)


async def on_problem(request: Request, error: Exception) -> Response:
    """Answer an error that a service function raised."""
    assert isinstance(error, ProblemError)  # noqa: S101 (registered for it)
    return problem_response(error.code, error.detail, **error.members, **for_openai(request, error.detail))


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a submission that cannot be accepted."""
    assert isinstance(error, InvalidRequestError)  # noqa: S101 (registered for it)
    detail = "The submission cannot be used."
    return problem_response(
        "invalid_request", detail, errors=error.problems, **for_openai(request, str(error))
    )


def for_openai(request: Request, message: str) -> dict[str, Any]:
    """Return the member that OpenAI's clients show, and all they show, where one of them is asking."""
    return {"message": message} if request.url.path.startswith("/v1/images/") else {}


async def on_invalid_parameters(_request: Request, error: Exception) -> Response:
    """Answer a query or path parameter that cannot be read."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it)
    problems = [FieldProblem(parameter=str(e["loc"][-1]), detail=f"{e['msg']}.") for e in error.errors()]
    return problem_response("invalid_request", "A parameter cannot be used.", errors=problems)


async def on_routing(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it)
    code = ROUTING_CODES.get(error.status_code, "internal_error")
    detail = f"{request.method} {request.url.path[:200]} is not a route of this server."
    headers = {"Allow": ", ".join(allowed_methods(request))} if code == "method_not_allowed" else {}
    headers = {**(error.headers or {}), **headers}
    return problem_response(code, detail, headers, **for_openai(request, detail))


def allowed_methods(request: Request) -> list[str]:
    """List what a path allows over all its routes; Starlette's own answer knows the first one only."""
    found: set[str] = set()
    scope = dict(request.scope)
    if "app_root_path" in scope:  # a folder of files refused it, for which the path begins at the folder
        scope["root_path"] = scope["app_root_path"]
    for route in request.app.state.routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", READING)
    return sorted(found)


async def on_redis_away(_request: Request, error: Exception) -> Response:
    """Answer while Redis cannot be reached."""
    logger.warning("Redis is unavailable: %s", error)
    return problem_response("redis_unavailable", "The server's store cannot be reached.")


async def on_redis_error(request: Request, error: Exception) -> Response:
    """Answer an error reply of Redis: it cannot write now, or the command was ours to get right."""
    reply = str(error).rpartition("of pipeline caused error: ")[2]
    if reply.startswith(REDIS_CANNOT_WRITE):
        return await on_redis_away(request, error)
    logger.error("Redis refused a command", exc_info=error)
    return await on_defect(request, error)


async def on_defect(_request: Request, _error: Exception) -> Response:
    """Answer a defect of ours; the server logs the exception, the client does not see it."""
    return problem_response("internal_error", "The server met a defect; its log has the details.")
