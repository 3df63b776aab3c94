"""What can go wrong when talking to a Rollover server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx


class RolloverError(Exception):
    """Every error this package raises."""


class ConnectionFailedError(RolloverError):
    """The server could not be reached, or went away and did not come back."""


class InvalidArgumentError(RolloverError, ValueError):
    """An address or a key that is none, or a value that JSON has no form for. Nothing was sent."""


class UnexpectedAnswerError(RolloverError):
    """What answered does not speak as a Rollover server does."""


class WaitTimeoutError(RolloverError):
    """The job had not ended within the time given to :meth:`Client.wait`. It is still running."""


@dataclass(frozen=True)
class InvalidField:
    """One field the server refused: where it is, why, and what would be allowed.

    ``pointer`` is a JSON pointer into the body; ``parameter`` a query parameter or header, where it is one.
    """

    pointer: str
    detail: str
    allowed: Any = None
    parameter: str | None = None


class ApiError(RolloverError):
    """The server's answer was a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        code: the server's stable code for this problem, such as ``invalid_request``.
        detail: one sentence for a person.
        errors: one entry for each field refused.
        retry_after: seconds to wait before trying again, where the server says so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        errors: Sequence[InvalidField],
        retry_after: float | None,
    ) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after
        super().__init__(self._text())

    def _text(self) -> str:
        head = f"{self.detail or self.title} ({self.code}, HTTP {self.status})"
        return "\n".join([head, *(_line(error) for error in self.errors), *self.hints()])

    def hints(self) -> Sequence[str]:
        """What the reader can do in Python or a shell, where the server's words are for HTTP."""
        return ()


class AuthError(ApiError):
    """The server wants an API key (``ROLLOVER_API_KEY``), or does not allow this to the one it got."""

    def hints(self) -> Sequence[str]:
        """Where the key goes."""
        return ("Set ROLLOVER_API_KEY, or pass `api_key` to the client.",) if self.status == 401 else ()


class NotFoundError(ApiError):
    """There is no such job, image or route."""


class InvalidRequestError(ApiError):
    """The request was refused; ``errors`` names each field."""


class ConflictError(ApiError):
    """The job is not in a state that allows this."""


class UnavailableError(ApiError):
    """The server cannot take this now; see ``retry_after``."""

    def hints(self) -> Sequence[str]:
        """When it can be tried again."""
        return (f"Try again after {self.retry_after:g} s.",) if self.retry_after else ()


_CLASSES: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: UnavailableError,
    503: UnavailableError,
}


def error_from(response: httpx.Response) -> ApiError:
    """The error a response with status 400 or above stands for, whether or not its body is problem+json."""
    problem = _problem(response)
    return _CLASSES.get(response.status_code, ApiError)(
        status=response.status_code,
        code=str(problem.get("code") or f"http_{response.status_code}"),
        title=str(problem.get("title") or response.reason_phrase),
        detail=str(problem.get("detail") or ""),
        errors=[_field(entry) for entry in problem.get("errors") or [] if isinstance(entry, Mapping)],
        retry_after=seconds_to_wait(response),
    )


def seconds_to_wait(response: httpx.Response) -> float | None:
    """``Retry-After`` in seconds; None where it is absent or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _line(error: InvalidField) -> str:
    """A refused field, with what is allowed unless the sentence names it already."""
    allowed = [str(value) for value in error.allowed or ()]
    told = all(value in error.detail for value in allowed)
    place = error.parameter or error.pointer or "/"
    return f"  {place}: {error.detail}" + ("" if told else f" Allowed: {', '.join(allowed)}.")


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}


def _field(entry: Mapping[str, Any]) -> InvalidField:
    return InvalidField(
        pointer=str(entry.get("pointer", "")),
        detail=str(entry.get("detail", "")),
        allowed=entry.get("allowed"),
        parameter=entry.get("parameter"),
    )
