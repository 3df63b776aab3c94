"""Clients of a server on this machine that cost as little as can be: they must not be what is measured."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
EVENT_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)
FINAL = re.compile(rb"^event: (completed|failed|canceled)$", re.MULTILINE)


@dataclass
class Connection:
    """One HTTP/1.1 connection that is kept; a context manager."""

    port: int

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request; status and body of the answer."""
        status, head = await self._send(method, path, body)
        found = LENGTH.search(head)
        return status, await self._reader.readexactly(int(found[1])) if found else b""

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Parts of an answer that comes in chunks, to its end."""
        status, _ = await self._send("GET", path, b"")
        if status != 200:
            raise ConnectionError(f"{path} answered {status}")
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]

    async def _send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        return int(answer[9:12]), answer


@dataclass
class Seen:
    """What some clients have seen: seconds of each answer by what was asked, and every error."""

    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    errors: list[str] = field(default_factory=list[str])
    events: int = 0

    async def timed(self, name: str, connection: Connection, path: str) -> None:
        """Ask, and note how long that took, or that it failed."""
        began = time.perf_counter()
        status, _ = await connection.ask("GET", path)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        if status != 200:
            self.errors.append(f"{path} answered {status}")

    async def followed(self, port: int, path: str) -> None:
        """Follow a job's events to the end; an error unless each came once, in order, the final one last."""
        text = b""
        async with Connection(port) as connection:
            async for part in connection.stream(path):
                text += part
        ids = [int(number) for number in EVENT_ID.findall(text)]
        self.events += len(ids)
        if ids != list(range(1, len(ids) + 1)) or len(FINAL.findall(text)) != 1:
            self.errors.append(f"{path} has a gap, a repeat or no end")
