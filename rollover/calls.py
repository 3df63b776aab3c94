"""Every route as a value: what to send, and how to read the answer. The clients only carry them."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote as quoted

import httpx

from rollover.documents import Generation, Page, generation
from rollover.errors import InvalidArgumentError, seconds_to_wait

T = TypeVar("T")
Reward = str | Mapping[str, Any]
VISIBLE = re.compile(r"[\x21-\x7e]+")
"""What a header can carry of a key."""
Picture = bytes | Path
"""A PNG or JPEG file: its bytes, or where it is."""
TraceFormat = Literal["json", "jsonl", "csv"]

JOBS = "/v1/generations"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One HTTP request and the reader of its answer.

    Args:
        method: of HTTP.
        path: below the server's address.
        read: the value a successful answer stands for.
        json: the body.
        params: the query.
        headers: besides the client's own.
        repeatable: safe to send again when the wire fails.
        hold: seconds the server may take longer than usual, because it was asked to.
        done: read this where a repetition is a conflict: the first had worked, its answer was lost.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    repeatable: bool = True
    hold: float = 0.0
    done: "Call[T] | None" = None


def submit(body: Mapping[str, Any], idempotency_key: str, hold: float | None) -> Call[Generation]:
    """Post a job. The key makes it safe to post twice; ``hold``: answer only when the job has ended."""
    headers = _headers(idempotency_key, hold)
    return Call("POST", JOBS, _document, json=body, headers=headers, hold=hold or 0.0)


def body_of(
    prompt: str,
    reward: Reward | Sequence[Reward] | None,
    nfe: int | None,
    image: Picture | None,
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    """The request body: only what the caller said, so that every default is the server's.

    Raises :class:`InvalidArgumentError` for an image that cannot be read.
    """
    body: dict[str, Any] = {"prompt": prompt, **fields}
    if image is not None:
        body["image"] = in_base64(image)
    if reward is not None:
        body["reward"] = reward
    if nfe is not None:
        body["budget"] = budget_of(nfe, body.get("budget") or {})
    return body


def budget_of(nfe: int | None, limits: Mapping[str, Any]) -> dict[str, Any]:
    """A budget: what the caller said of it, and no more.

    Raises :class:`InvalidArgumentError` for limits that have no names.
    """
    if not isinstance(limits, Mapping):
        raise InvalidArgumentError(
            f"`budget` is {limits!r}: it is a dictionary of limits, such as {{'seconds': 30}}, beside `nfe`."
        )
    return {**limits} if nfe is None else {**limits, "nfe": nfe}


def in_base64(image: Picture) -> str:
    """A file's bytes, or those of the file at a path, in base64."""
    if not isinstance(image, bytes | Path):
        kind = type(image).__name__
        raise InvalidArgumentError(f"An image is the bytes of a file or its pathlib.Path; this is a {kind}.")
    try:
        content = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"The image {image} cannot be read: {error.strerror}.") from error
    return base64.b64encode(content).decode()


def quote(body: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Ask what a job would take."""
    return Call("POST", "/v1/quotes", _json, json=body)


def get(job_id: str) -> Call[Generation]:
    """Read a job document."""
    return Call("GET", _job(job_id), _document)


def look(job_id: str) -> Call[tuple[Generation, float | None]]:
    """Read a job document, and in how many seconds the server wants to be asked again, where it says so."""
    return Call("GET", _job(job_id), lambda response: (_document(response), seconds_to_wait(response)))


def jobs(status: str | None, cursor: str | None, limit: int | None) -> Call[Page]:
    """List jobs, newest first."""
    given = {"status": status, "cursor": cursor, "limit": limit}
    return Call(
        "GET", JOBS, _page, params={name: value for name, value in given.items() if value is not None}
    )


def extend(
    job_id: str, budget: Mapping[str, Any], idempotency_key: str, hold: float | None
) -> Call[Generation]:
    """Post a job that goes on from the end of another. Key and ``hold`` as for ``submit``."""
    headers = _headers(idempotency_key, hold)
    path = f"{_job(job_id)}/extend"
    return Call("POST", path, _document, json={"budget": budget}, headers=headers, hold=hold or 0.0)


def cancel(job_id: str) -> Call[Generation]:
    """Ask for a job to end; what it has found so far becomes its result."""
    return Call("POST", f"{_job(job_id)}/cancel", _document, done=get(job_id))


def delete(job_id: str) -> Call[None]:
    """Remove a job with its events and images. Not repeated: the second answer would be 404."""
    return Call("DELETE", _job(job_id), _nothing, repeatable=False)


def image(job_id: str, number: int) -> Call[bytes]:
    """The bytes of one result image."""
    return Call("GET", f"{_job(job_id)}/images/{number}", _content)


def baseline(job_id: str) -> Call[bytes]:
    """The bytes of the baseline's image."""
    return Call("GET", f"{_job(job_id)}/baseline", _content)


def preview(job_id: str, seq: int) -> Call[bytes]:
    """The bytes of the preview that event ``seq`` announced."""
    return Call("GET", f"{_job(job_id)}/previews/{seq}", _content)


def trace(job_id: str, kind: TraceFormat) -> Call[bytes]:
    """Every candidate evaluated, as the bytes of a JSON, JSONL or CSV file."""
    return Call("GET", f"{_job(job_id)}/trace", _content, params={"format": kind})


def catalogue(kind: Literal["models", "rewards", "strategies"]) -> Call[list[dict[str, Any]]]:
    """What this server can do."""
    return Call("GET", f"/v1/{kind}", _entries)


def events_path(job_id: str) -> str:
    """The path of a job's event stream."""
    return f"{_job(job_id)}/events"


def visible(key: str, what: str) -> str:
    """A key that a header can carry. Raises :class:`InvalidArgumentError` for another, not repeating it."""
    if not VISIBLE.fullmatch(key):
        raise InvalidArgumentError(
            f"{what} has a blank, a line end or a character outside ASCII in it, which a header cannot carry."
        )
    return key


def _headers(idempotency_key: str, hold: float | None) -> dict[str, str]:
    headers = {"Idempotency-Key": visible(idempotency_key, "The idempotency key")}
    return headers if hold is None else {**headers, "Prefer": f"wait={int(hold)}"}


def _job(job_id: str) -> str:
    return f"{JOBS}/{quoted(job_id, safe='')}"


def _document(response: httpx.Response) -> Generation:
    return generation(response.json())


def _nothing(_response: httpx.Response) -> None:
    return None


def _content(response: httpx.Response) -> bytes:
    return response.content


def _entries(response: httpx.Response) -> list[dict[str, Any]]:
    return response.json()["data"]


def _json(response: httpx.Response) -> dict[str, Any]:
    return response.json()


def _page(response: httpx.Response) -> Page:
    body = response.json()
    return Page(tuple(generation(item) for item in body["data"]), body.get("next_cursor"))
