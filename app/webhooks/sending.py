"""One POST to a receiver that a client has named: to a checked address, within a time, and no further.

httpcore, the transport under httpx, does exactly one request: it follows no redirect, heeds no proxy of the
environment, keeps no cookie and unpacks nothing. Its network backend is ours.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from ssl import SSLContext
from typing import cast

import httpcore
import httpx

from contracts.destinations import Destination, Network, destination, reachable

RESOLVERS = ThreadPoolExecutor(64, thread_name_prefix="resolver")
"""A look-up cannot be interrupted: a slow name server keeps one of these threads, never the default few."""
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
CONNECT_SHARE = 1 / 3
"""Of a try's time, what one address has to answer: where a name has several, the next may be better."""
LONGEST_DETAIL = 200
logger = logging.getLogger("rollover.webhooks")


class InnerAddressError(Exception):
    """A name has no address, or one that webhooks must not reach. A client is not told which."""


@dataclass(frozen=True)
class Answer:
    """What a try came to: the receiver's status code, or None and why there is none."""

    status_code: int | None = None
    detail: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message."""
        return self.status_code is not None and 200 <= self.status_code < 300


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


@dataclass
class Sender:
    """Sends messages, each over a connection of its own.

    Args:
        networks: inner ones that may be reached.
        timeout: seconds from looking up the name to the head of the answer.
        resolve: finds a host's addresses.
        tls: whom to trust; httpx's default is certifi's list, or what `SSL_CERT_FILE` names.
    """

    networks: tuple[Network, ...] = ()
    timeout: float = 15.0
    resolve: Resolve = resolve
    tls: SSLContext = field(default_factory=httpx.create_ssl_context)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message, and read of the answer no more than its head."""
        try:
            target = destination(url, self.networks)
        except ValueError as error:
            return Answer(detail=f"The server does not send webhooks there any more: {error}")
        try:
            async with asyncio.timeout(self.timeout):
                code = await self.exchange(target, headers, body)
        except Exception as error:  # noqa: BLE001 (whatever a receiver provokes is a try that failed)
            return Answer(detail=self.failed(error))
        answer = Answer(code)
        return answer if answer.accepted else Answer(code, refused(code))

    def failed(self, error: Exception) -> str:
        """Say why there was no answer, in words that tell nothing of what lies behind the address."""
        match error:
            case InnerAddressError():
                return "The host has no address that webhooks may reach."
            case TimeoutError() | httpcore.TimeoutException():
                return f"The receiver did not answer within {self.timeout:g} s."
            case httpcore.ProtocolError():
                # Its text quotes what came.
                return "The receiver hung up, or answered with something other than HTTP."
            case httpcore.NetworkError() | OSError():
                return f"The connection failed: {error}"[:LONGEST_DETAIL]
            case _:
                logger.error("a webhook met a defect", exc_info=error)
                return "The exchange failed."

    async def exchange(self, target: Destination, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status code that a receiver answers with; the rest is left unread."""
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
            return response.status


def refused(code: int) -> str:
    """Say why an answer is none that a message was delivered with."""
    if 300 <= code < 400:
        return f"The receiver answered {code}; redirects are not followed."
    return f"The receiver answered {code}."
