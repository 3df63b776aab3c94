"""Read a posted JSON body: its type, its size while it streams in, its syntax."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from email.message import Message

from fastapi import Request
from pydantic_core import from_json

from app.problems import ProblemError

DRAIN_FACTOR = 16
"""How many times the limit is read and thrown away, so that a client gets the answer and not a reset."""


async def posted_json(request: Request, limit: int) -> object:
    """Return the parsed body of at most `limit` bytes.

    NaN and infinite numbers are parsed, so that the refusal can point at their field.

    Raises:
        ProblemError: 415, 413 or 400.
    """
    check_type(request)
    body = await limited(request.stream(), limit)
    try:
        payload = from_json(body, allow_inf_nan=True)
        repeated = repeated_name(body.decode())
    except ValueError as error:
        raise ProblemError("malformed_json", f"The body is not JSON: {error}.") from None
    if repeated is not None:
        raise ProblemError("malformed_json", f"The body names {repeated!r} twice in one object.")
    return payload


def repeated_name(text: str) -> str | None:
    """Return a name that an object of some valid JSON has twice: one of its values would be lost unseen."""
    found: list[str] = []

    def noted(pairs: list[tuple[str, object]]) -> None:
        times = Counter(name for name, _ in pairs)
        found.extend(name for name, count in times.items() if count > 1)

    json.loads(text, object_pairs_hook=noted, parse_int=str, parse_float=str)
    return found[0][:100] if found else None


def check_type(request: Request) -> None:
    """Refuse what is not plain UTF-8 JSON."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    charset = header.get_content_charset("utf-8")
    if header.get_content_type() != "application/json" or charset not in ("utf-8", "us-ascii"):
        detail = "Send the body with 'Content-Type: application/json'."
        raise ProblemError("unsupported_media_type", detail)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError("unsupported_media_type", "Send the body without 'Content-Encoding'.")


async def limited(stream: AsyncIterator[bytes], limit: int) -> bytes:
    """Collect a stream of at most `limit` bytes."""
    body = bytearray()
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size > DRAIN_FACTOR * limit:
            break
    if size > limit:
        raise ProblemError("body_too_large", f"The body may have at most {limit} bytes.")
    return bytes(body)
