"""Read a posted JSON body: its type, its size while it streams in, its syntax."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from email.message import Message

from fastapi import Request
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from app.problems import ProblemError

DRAIN_FACTOR = 16
"""How many times the limit is read and thrown away, so that a client gets the answer and not a reset."""
IMAGE = re.compile(rb'"image"[ \t\r\n]*:[ \t\r\n]*"')
"""What the image of a submission follows: inside a text of JSON, a quote has a backslash before it."""


async def posted_json(request: Request, limit: int, image: int = 0) -> object:
    """Return the parsed body of at most `limit` bytes, and `image` more for an image in it.

    NaN and infinite numbers are parsed, so that the refusal can point at their field.

    Raises:
        ProblemError: 415, 413 or 400.
    """
    check_type(request)
    try:
        body = await limited(request.stream(), limit, image)
    except ClientDisconnect:  # for the log: nobody reads the answer
        raise ProblemError("malformed_json", "The client left before the end of its body.") from None
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
    try:
        charset = header.get_content_charset("utf-8")
    except TypeError:  # raised over a parameter in parts, some of them numbered and some not
        charset = None
    if header.get_content_type() != "application/json" or charset not in ("utf-8", "us-ascii"):
        detail = "Send the body with 'Content-Type: application/json'."
        raise ProblemError("unsupported_media_type", detail)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError("unsupported_media_type", "Send the body without 'Content-Encoding'.")


async def limited(stream: AsyncIterator[bytes], limit: int, image: int) -> bytes:
    """Collect a stream of at most `limit` bytes, and `image` more for an image in it."""
    body = bytearray()
    size, most = 0, limit + image
    async for chunk in stream:
        size += len(chunk)
        if size <= most:
            body += chunk
        elif size > DRAIN_FACTOR * most:
            break
    if size > most or beside_image(body, limit) > limit:
        more = f" beside its image, and {most} with it" if image else ""
        raise ProblemError("body_too_large", f"The body may have at most {limit} bytes{more}.")
    return bytes(body)


def beside_image(body: bytearray, limit: int) -> int:
    """Return how many bytes of a body are not the text of its image, looked for in the first `limit`.

    It is counted as it was sent, backslashes included, and before anything is parsed: a body of many small
    values takes seconds, one long text does not.
    """
    begins = [found.end() for found in IMAGE.finditer(body, 0, limit)]
    # To the next quote: base64 has none.
    return len(body) - max([0, *(body.find(b'"', begin) - begin for begin in begins)])
