"""The clients, one blocking and one for asyncio. Both only carry the calls of :mod:`rollover.calls`.

with rollover.Client() as client:
    job = client.submit("two red circles and a blue square", reward="scene_match", nfe=200)
    for event in client.events(job.id):
        print(event.type, event.data)
    png = client.image(job.id, 0)
"""

import asyncio
import math
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rollover import calls
from rollover.calls import Call, Picture, Reward, TraceFormat
from rollover.documents import Event, Generation, Page
from rollover.errors import (
    ConflictError,
    ConnectionFailedError,
    InvalidArgumentError,
    UnavailableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
    error_from,
)
from rollover.sse import EventParser

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
ATTEMPTS = 4
"""How often a repeatable call is sent before giving up."""
STREAM_ATTEMPTS = 8
"""How often a broken stream is reopened without news before giving up: about 15 s."""
LONGEST_PAUSE = 3.0
"""Seconds between two attempts at most, where the server does not ask for more."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds a server may ask us to wait, as long as its limit of requests a minute may; where it asks for more,
the caller decides."""
STREAM_SILENCE = 60.0
"""Seconds without a byte after which a stream is taken for broken. Servers send comments far more often."""
POLL_FIRST, POLL_LAST = 0.1, 2.0
"""Seconds between two looks at a job: the first pause, and the longest it grows to by itself."""


class _NothingMoreError(Exception):
    """The server says that the stream had been read to its end before."""


def default_url() -> str:
    """``ROLLOVER_URL`` of the environment, else the address ``rollover serve`` listens on."""
    return os.environ.get("ROLLOVER_URL", DEFAULT_URL)


def default_key() -> str | None:
    """``ROLLOVER_API_KEY`` of the environment; None where it is not set."""
    return os.environ.get("ROLLOVER_API_KEY") or None


def pause(attempt: int, error: Exception | None) -> float:
    """Seconds to wait before attempt number ``attempt`` + 1: 0.2, 0.4, 0.8, ... 3, or as asked to."""
    asked = error.retry_after if isinstance(error, UnavailableError) else None
    return max(min(0.2 * 2.0 ** (attempt - 1), LONGEST_PAUSE), asked or 0.0)


def _options(base_url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    url = _address(base_url or default_url())
    secret = api_key or default_key()
    named = "The API key (`api_key`, or ROLLOVER_API_KEY)"
    headers = {"Authorization": f"Bearer {calls.visible(secret, named)}"} if secret else {}
    local = url.host in {"127.0.0.1", "localhost", "::1"}
    # A proxy named in the environment cannot reach this machine's own loopback.
    return {"base_url": url, "headers": headers, "timeout": timeout, "trust_env": not local}


def _address(text: str) -> httpx.URL:
    """Read a server's address. Raises :class:`InvalidArgumentError` where it is none."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidArgumentError(_not_an_address(text)) from error
    # httpx writes what no host name may hold as %5B and so on.
    host = url.host and "%" not in url.host
    if url.scheme not in {"http", "https"} or not host or not 0 < (url.port or 80) <= 65535:
        raise InvalidArgumentError(_not_an_address(text))
    return url


def _not_an_address(text: str) -> str:
    return (
        f"{text!r} is not the address of a server: http://HOST:PORT or https://HOST:PORT, PORT up to 65535."
    )


def _build(http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
    timeout = http.timeout
    if call.hold:
        timeout = httpx.Timeout(**{**timeout.as_dict(), "read": (timeout.read or 0.0) + call.hold})
    try:
        return http.build_request(
            call.method,
            call.path,
            json=call.json,
            params=call.params or None,
            headers=dict(call.headers),
            timeout=timeout,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"The request has no form in JSON: numbers must be finite and all values plain ({error})."
        ) from error


def _read(call: Call[T], response: httpx.Response) -> T:
    if response.is_error:
        raise error_from(response)
    try:
        return call.read(response)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unexpected(response) from error


def _worth_repeating(call: Call[Any], error: Exception, attempt: int) -> bool:
    return attempt < ATTEMPTS and call.repeatable and _may_pass(error)


def _may_pass(error: Exception) -> bool:
    """Whether it is worth waiting for the end of this."""
    if isinstance(error, UnavailableError):
        return error.status == 503 and (error.retry_after or 0.0) <= LONGEST_RETRY_AFTER
    return isinstance(error, httpx.TransportError)


def _is_limit(error: Exception) -> bool:
    """Whether the server takes no more requests for a while, which whoever waits for a job can wait for."""
    asked = error.retry_after if isinstance(error, UnavailableError) and error.status == 429 else None
    return asked is not None and asked <= LONGEST_RETRY_AFTER


def _check_stream(response: httpx.Response) -> None:
    """See that an answer is a stream with events in it."""
    if response.status_code == httpx.codes.NO_CONTENT:
        raise _NothingMoreError
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise _unexpected(response)


def _stream_headers(last: int) -> dict[str, str]:
    return {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last else {})}


def _unreachable(url: httpx.URL, error: Exception | None) -> ConnectionFailedError:
    reason = f": {error}" if error else ""
    return ConnectionFailedError(f"No answer from {url}{reason}. Is `rollover serve` running there?")


def _unexpected(response: httpx.Response) -> UnexpectedAnswerError:
    kind = response.headers.get("content-type", "no type")
    return UnexpectedAnswerError(
        f"{response.url} answered HTTP {response.status_code} with {kind}, not as a Rollover server does. "
        f"Is another program on that port? ROLLOVER_URL or --url says where the server is."
    )


class _Pauses:
    """Seconds between two looks at a job: growing, not shorter than the server asks, within a time."""

    def __init__(self, job_id: str, within: float | None) -> None:
        self.job_id = job_id
        self.within = math.inf if within is None else within
        self.end = time.monotonic() + self.within
        self.interval = POLL_FIRST

    def next(self, asked: float | None) -> float:
        """The pause before the next look, the last when the time is over.

        Raises :class:`WaitTimeoutError` where it is.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(
                f"Job {self.job_id} had not ended after {self.within:g} s. It goes on; `cancel` would end it."
            )
        seconds = max(self.interval, min(asked or 0.0, LONGEST_RETRY_AFTER))
        self.interval = min(self.interval * 1.5, POLL_LAST)
        return min(seconds, left)


class Client:
    """A blocking client.

    Args:
        base_url: the server; ``ROLLOVER_URL`` or http://127.0.0.1:8000 where not given.
        api_key: sent as a bearer token, where the server asks for one; ``ROLLOVER_API_KEY`` where not given.
        timeout: seconds for one request; streams and held answers wait longer.
        transport: an httpx transport to use in place of the network.

    Every method raises :class:`ApiError` (or one of its kinds) where the server refuses, and
    :class:`ConnectionFailedError` where it cannot be reached. Calls safe to repeat are repeated a few times;
    ``wait`` and ``events`` pause too where the key's requests are used up for now.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**_options(base_url, api_key, timeout), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def submit(
        self,
        prompt: str,
        *,
        reward: Reward | Sequence[Reward] | None = None,
        nfe: int | None = None,
        image: Picture | None = None,
        hold: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> Generation:
        """Post a job.

        Args:
            prompt: what the image should show.
            reward: a name, ``{"name", "weight", "params"}``, or several of them.
            nfe: the budget, in function evaluations.
            image: what the prompt is about, for models that take one: a PNG or JPEG file.
            hold: ask the server to answer only when the job has ended, in at most so many seconds (up to 60).
            idempotency_key: two submissions with one key are one job; a fresh key where not given.
            fields: any other field of the request, as the API documents it (``seed``, ``search`` ...).
        """
        body = calls.body_of(prompt, reward, nfe, image, fields)
        call = calls.submit(body, idempotency_key or uuid.uuid4().hex, hold)
        return self._call(call)

    def quote(
        self,
        prompt: str,
        *,
        reward: Reward | Sequence[Reward] | None = None,
        nfe: int | None = None,
        image: Picture | None = None,
        **fields: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> dict[str, Any]:
        """What the same job would do and take, as the API documents it; nothing is queued."""
        return self._call(calls.quote(calls.body_of(prompt, reward, nfe, image, fields)))

    def get(self, job_id: str) -> Generation:
        """The job document."""
        return self._call(calls.get(job_id))

    def wait(self, job_id: str, within: float | None = None) -> Generation:
        """The job document once the job has ended, whichever way.

        Raises :class:`WaitTimeoutError` after ``within`` seconds; the job goes on.
        """
        pauses = _Pauses(job_id, within)
        while True:
            try:
                document, asked = self._call(calls.look(job_id))
                if document.ended:
                    return document
            except UnavailableError as error:
                if not _is_limit(error):
                    raise
                asked = error.retry_after
            time.sleep(pauses.next(asked))

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Every event after number ``after``, as it comes, to the final one; reconnects when cut."""
        last, failures = after, 0
        error: Exception | None = None
        while failures < STREAM_ATTEMPTS:
            try:
                for event in self._events_once(job_id, last):
                    last, failures = event.seq, 0
                    yield event
                    if event.final:
                        return
            except _NothingMoreError:
                return
            except (httpx.TransportError, UnavailableError) as broken:
                if not (_may_pass(broken) or _is_limit(broken)):
                    raise
                error = broken
            failures += 1
            time.sleep(pause(failures, error))
        raise _final(error, self._http.base_url)

    def list(self, *, status: str | None = None, cursor: str | None = None, limit: int | None = None) -> Page:
        """One page of jobs, newest first; ``page.next`` is the cursor of the one after it."""
        return self._call(calls.jobs(status, cursor, limit))

    def extend(
        self,
        job_id: str,
        nfe: int | None = None,
        *,
        hold: float | None = None,
        idempotency_key: str | None = None,
        **budget: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> Generation:
        """Post a job that goes on where another has ended with success.

        Args:
            job_id: the other.
            nfe: what the new one may spend, in function evaluations; the server's default where not given.
            hold: as for ``submit``.
            idempotency_key: as for ``submit``.
            budget: further limits (``seconds``, ``target_reward``, ``patience``).
        """
        key = idempotency_key or uuid.uuid4().hex
        return self._call(calls.extend(job_id, calls.budget_of(nfe, budget), key, hold))

    def cancel(self, job_id: str) -> Generation:
        """Ask the job to end; the best it has found so far becomes its result."""
        return self._call(calls.cancel(job_id))

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its events and images."""
        self._call(calls.delete(job_id))

    def image(self, job_id: str, number: int = 0) -> bytes:
        """The bytes of result image ``number``."""
        return self._call(calls.image(job_id, number))

    def images(self, job_id: str) -> Iterator[bytes]:
        """The bytes of every result image, best first."""
        result = self.get(job_id).result
        for number in range(len(result.images) if result else 0):
            yield self.image(job_id, number)

    def baseline(self, job_id: str) -> bytes:
        """The bytes of the image that best-of-n found, of a job submitted with ``baseline=True``."""
        return self._call(calls.baseline(job_id))

    def preview(self, job_id: str, seq: int) -> bytes:
        """The bytes of the preview that event ``seq`` announced."""
        return self._call(calls.preview(job_id, seq))

    def trace(self, job_id: str, kind: TraceFormat = "jsonl") -> bytes:
        """Every candidate evaluated, as the bytes of a JSON, JSONL or CSV file."""
        return self._call(calls.trace(job_id, kind))

    def models(self) -> Sequence[dict[str, Any]]:
        """The models this server knows, and whether a worker serves each of them now."""
        return self._call(calls.catalogue("models"))

    def rewards(self) -> Sequence[dict[str, Any]]:
        """The rewards this server knows."""
        return self._call(calls.catalogue("rewards"))

    def strategies(self) -> Sequence[dict[str, Any]]:
        """The search strategies this server knows, with a JSON schema of each one's parameters."""
        return self._call(calls.catalogue("strategies"))

    def _call(self, call: Call[T]) -> T:
        attempt = 1
        while True:
            try:
                return self._call_once(call)
            except ConflictError:
                if attempt == 1 or call.done is None:
                    raise
                call = call.done
            except (httpx.TransportError, UnavailableError) as error:
                if not _worth_repeating(call, error, attempt):
                    raise _final(error, self._http.base_url) from error
                time.sleep(pause(attempt, error))
            attempt += 1

    def _call_once(self, call: Call[T]) -> T:
        return _read(call, self._http.send(_build(self._http, call)))

    def _events_once(self, job_id: str, last: int) -> Iterator[Event]:
        parser = EventParser()
        with self._http.stream(
            "GET", calls.events_path(job_id), headers=_stream_headers(last), timeout=STREAM_SILENCE
        ) as response:
            if response.is_error:
                response.read()
                raise error_from(response)
            _check_stream(response)
            for line in response.iter_lines():
                if event := parser.feed(line):
                    yield event


class AsyncClient:
    """The same client for asyncio; see :class:`Client` for arguments and errors."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(base_url, api_key, timeout), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def submit(
        self,
        prompt: str,
        *,
        reward: Reward | Sequence[Reward] | None = None,
        nfe: int | None = None,
        image: Picture | None = None,
        hold: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> Generation:
        """Post a job; see :meth:`Client.submit`."""
        body = calls.body_of(prompt, reward, nfe, image, fields)
        call = calls.submit(body, idempotency_key or uuid.uuid4().hex, hold)
        return await self._call(call)

    async def quote(
        self,
        prompt: str,
        *,
        reward: Reward | Sequence[Reward] | None = None,
        nfe: int | None = None,
        image: Picture | None = None,
        **fields: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> dict[str, Any]:
        """What the same job would do and take; see :meth:`Client.quote`."""
        return await self._call(calls.quote(calls.body_of(prompt, reward, nfe, image, fields)))

    async def get(self, job_id: str) -> Generation:
        """The job document."""
        return await self._call(calls.get(job_id))

    async def wait(self, job_id: str, within: float | None = None) -> Generation:
        """The job document once the job has ended. See :meth:`Client.wait`."""
        pauses = _Pauses(job_id, within)
        while True:
            try:
                document, asked = await self._call(calls.look(job_id))
                if document.ended:
                    return document
            except UnavailableError as error:
                if not _is_limit(error):
                    raise
                asked = error.retry_after
            await asyncio.sleep(pauses.next(asked))

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Every event after number ``after``, as it comes, to the final one; reconnects when cut."""
        last, failures = after, 0
        error: Exception | None = None
        while failures < STREAM_ATTEMPTS:
            try:
                async for event in self._events_once(job_id, last):
                    last, failures = event.seq, 0
                    yield event
                    if event.final:
                        return
            except _NothingMoreError:
                return
            except (httpx.TransportError, UnavailableError) as broken:
                if not (_may_pass(broken) or _is_limit(broken)):
                    raise
                error = broken
            failures += 1
            await asyncio.sleep(pause(failures, error))
        raise _final(error, self._http.base_url)

    async def list(
        self, *, status: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> Page:
        """One page of jobs, newest first."""
        return await self._call(calls.jobs(status, cursor, limit))

    async def extend(
        self,
        job_id: str,
        nfe: int | None = None,
        *,
        hold: float | None = None,
        idempotency_key: str | None = None,
        **budget: Any,  # noqa: ANN401 -- any JSON the API takes
    ) -> Generation:
        """Post a job that goes on where another has ended; see :meth:`Client.extend`."""
        key = idempotency_key or uuid.uuid4().hex
        return await self._call(calls.extend(job_id, calls.budget_of(nfe, budget), key, hold))

    async def cancel(self, job_id: str) -> Generation:
        """Ask the job to end; the best it has found so far becomes its result."""
        return await self._call(calls.cancel(job_id))

    async def delete(self, job_id: str) -> None:
        """Remove an ended job with its events and images."""
        await self._call(calls.delete(job_id))

    async def image(self, job_id: str, number: int = 0) -> bytes:
        """The bytes of result image ``number``."""
        return await self._call(calls.image(job_id, number))

    async def images(self, job_id: str) -> AsyncIterator[bytes]:
        """The bytes of every result image, best first."""
        result = (await self.get(job_id)).result
        for number in range(len(result.images) if result else 0):
            yield await self.image(job_id, number)

    async def baseline(self, job_id: str) -> bytes:
        """The bytes of the baseline's image; see :meth:`Client.baseline`."""
        return await self._call(calls.baseline(job_id))

    async def preview(self, job_id: str, seq: int) -> bytes:
        """The bytes of the preview that event ``seq`` announced."""
        return await self._call(calls.preview(job_id, seq))

    async def trace(self, job_id: str, kind: TraceFormat = "jsonl") -> bytes:
        """Every candidate evaluated, as the bytes of a JSON, JSONL or CSV file."""
        return await self._call(calls.trace(job_id, kind))

    async def models(self) -> Sequence[dict[str, Any]]:
        """The models this server knows, and whether a worker serves each of them now."""
        return await self._call(calls.catalogue("models"))

    async def rewards(self) -> Sequence[dict[str, Any]]:
        """The rewards this server knows."""
        return await self._call(calls.catalogue("rewards"))

    async def strategies(self) -> Sequence[dict[str, Any]]:
        """The search strategies this server knows, with a JSON schema of each one's parameters."""
        return await self._call(calls.catalogue("strategies"))

    async def _call(self, call: Call[T]) -> T:
        attempt = 1
        while True:
            try:
                return await self._call_once(call)
            except ConflictError:
                if attempt == 1 or call.done is None:
                    raise
                call = call.done
            except (httpx.TransportError, UnavailableError) as error:
                if not _worth_repeating(call, error, attempt):
                    raise _final(error, self._http.base_url) from error
                await asyncio.sleep(pause(attempt, error))
            attempt += 1

    async def _call_once(self, call: Call[T]) -> T:
        return _read(call, await self._http.send(_build(self._http, call)))

    async def _events_once(self, job_id: str, last: int) -> AsyncIterator[Event]:
        parser = EventParser()
        async with self._http.stream(
            "GET", calls.events_path(job_id), headers=_stream_headers(last), timeout=STREAM_SILENCE
        ) as response:
            if response.is_error:
                await response.aread()
                raise error_from(response)
            _check_stream(response)
            async for line in response.aiter_lines():
                if event := parser.feed(line):
                    yield event


def _final(error: Exception | None, url: httpx.URL) -> Exception:
    return error if isinstance(error, UnavailableError) else _unreachable(url, error)
