"""One POST to a place that was named from outside, over a connection of its own.

httpcore, the transport under httpx, does exactly one request: it follows no redirect, heeds no proxy of the
environment, keeps no cookie and unpacks nothing. Its network backend is ours.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from ssl import SSLContext
from typing import cast

import httpcore
import httpx

from contracts.destinations import Destination, Network, reachable

RESOLVERS = ThreadPoolExecutor(64, thread_name_prefix="resolver")
"""A look-up cannot be interrupted: a slow name server keeps one of these threads, never the default few."""
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
CONNECT_SHARE = 1 / 3
"""Of a try's time, what one address has to answer: where a name has several, the next may be better."""


class InnerAddressError(Exception):
    """A name has no address, or one that must not be reached. A client is not told which."""


class LongAnswerError(Exception):
    """The answer is longer than what is read of one."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host."""

    def look_up() -> list[str]:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

    return await asyncio.get_running_loop().run_in_executor(RESOLVERS, look_up)


def plain_backend() -> httpcore.AsyncNetworkBackend:
    """Return what connects to an address."""
    # Its type is that of a stand-in for where anyio is missing.
    return cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())


@dataclass
class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that it has checked: names are resolved once, there is no second answer.

    Args:
        networks: inner ones that may be reached.
        resolve: finds a host's addresses.
    """

    networks: Iterable[Network]
    resolve: Resolve
    inner: httpcore.AsyncNetworkBackend = field(default_factory=plain_backend)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            InnerAddressError: one of them must not be reached, or there is none.
        """
        addresses = await self.checked(host, port)
        for address in addresses[:-1]:
            try:
                return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self.inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def checked(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. One bad one spoils all: no honest name has such a mixture."""
        try:
            addresses = list(dict.fromkeys(await self.resolve(host, port)))
        except OSError as error:
            raise InnerAddressError from error
        if not addresses or not all(reachable(ip_address(each), self.networks) for each in addresses):
            raise InnerAddressError
        return addresses


@dataclass(frozen=True)
class Poster:
    """Sends requests, each over a connection of its own.

    Args:
        networks: inner ones that may be reached.
        timeout: seconds from looking up the name to the end of what is read of the answer.
        resolve: finds a host's addresses.
        tls: whom to trust; httpx's default is certifi's list, or what `SSL_CERT_FILE` names.
        longest: bytes of an answer's body that are read; 0: none, and the body is nobody's concern.
    """

    networks: tuple[Network, ...] = ()
    timeout: float = 15.0
    resolve: Resolve = resolve
    tls: SSLContext = field(default_factory=httpx.create_ssl_context)
    longest: int = 0

    async def exchange(
        self, target: Destination, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Return the answer's status code and body.

        Raises:
            InnerAddressError: the host has no address that may be reached.
            LongAnswerError: the answer is longer than what is read of one.
            TimeoutError: there was no answer in time.
            httpcore.NetworkError, httpcore.ProtocolError, OSError: the exchange failed.
        """
        async with asyncio.timeout(self.timeout):
            return await self._exchanged(target, headers, body)

    async def _exchanged(
        self, target: Destination, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        given = {"Host": target.authority, "Content-Length": str(len(body)), **headers}
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self.tls, network_backend=CheckedBackend(self.networks, self.resolve)
            ) as pool,
            pool.stream(
                "POST",
                httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.target),
                headers=list(given.items()),
                content=body,
                extensions={"timeout": {"connect": self.timeout * CONNECT_SHARE}},
            ) as response,
        ):
            return response.status, await self._read(response)

    async def _read(self, response: httpcore.Response) -> bytes:
        read = bytearray()
        if self.longest:
            async for piece in response.aiter_stream():
                read += piece
                if len(read) > self.longest:
                    raise LongAnswerError
        return bytes(read)
