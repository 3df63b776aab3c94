"""Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13.1.2)."""

import hashlib
from collections.abc import Mapping

from fastapi import Request, Response

IMMUTABLE = "private, max-age=31536000, immutable"
"""Never changes, and is for the one who asked: a shared cache would give it to those without the key."""


def tag_of(content: bytes) -> str:
    """Return a strong entity tag for some bytes."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def unchanged(request: Request, tag: str) -> bool:
    """Whether the client says it has this version already."""
    header = request.headers.get("if-none-match", "")
    known = [item.strip().removeprefix("W/") for item in header.split(",")]
    return tag in known or known == ["*"]


def conditional(
    request: Request, content: bytes, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with content and its tag, or with 304 where the client has it already."""
    tagged = {**(headers or {}), "ETag": tag_of(content)}
    if unchanged(request, tagged["ETag"]):
        return Response(status_code=304, headers=tagged)
    return Response(content, media_type=media_type, headers=tagged)
