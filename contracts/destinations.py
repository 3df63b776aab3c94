"""Where a request may go: what its URL looks like, and which addresses are not somebody's inside.

A client chooses a webhook's URL, so the one who connects must not be led to what only the server can reach.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARS = 2048
PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024
VISIBLE = re.compile(r"[\x21-\x7e]+")
NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
"""Names that resolvers take for addresses, such as `127.1` and `0x7f000001`."""
PUBLIC_V6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
INNER = {IPv4Address("168.63.129.16")}
"""Public by its number only: Azure's host answers there, to its own virtual machines."""


@dataclass(frozen=True)
class Destination:
    """A URL taken apart once: `host` is a name or an address without brackets, `target` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def destination(
    url: str, allowed: Iterable[Network] = (), setting: str = "ROLLOVER_WEBHOOK_NETWORKS"
) -> Destination:
    """Take a URL apart.

    Names are not resolved here: what they stand for may be another thing when the time comes.

    Args:
        url: as posted.
        allowed: inner networks that may be reached.
        setting: what they are allowed by, for the refusal.

    Raises:
        ValueError: nothing may go there; the message says what a URL must be.
    """
    if not VISIBLE.fullmatch(url):
        raise ValueError("Must be visible ASCII characters, others percent-encoded, names as `xn--...`.")
    parts = split(url)
    if "@" in parts.netloc:
        raise ValueError("Must have no user name and no password.")
    if "#" in url:
        raise ValueError("Must have no fragment.")
    host = (parts.hostname or "").removesuffix(".")
    check_host(host, tuple(allowed), setting)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port_of(parts), target)


def split(url: str) -> SplitResult:
    """Split a URL of a scheme that we speak."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("Must be an http or https URL with a host.")
    return parts


def port_of(parts: SplitResult) -> int:
    """Return the port; those of other well-known services are none of ours."""
    default = PORTS[parts.scheme]
    try:
        port = default if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port not in PORTS.values() and port < FIRST_FREE_PORT:
        raise ValueError(f"Its port must be 80, 443, or from {FIRST_FREE_PORT} to 65535.")
    return port


def check_host(host: str, allowed: tuple[Network, ...], setting: str) -> None:
    """Refuse a host that is an inner address whatever a resolver says, or no host at all."""
    try:
        address = ip_address(host)
    except ValueError:
        check_name(host, allowed, setting)
        return
    if not reachable(address, allowed):
        raise ValueError(
            "Must not lead to a private, loopback, link-local or otherwise inner address, "
            f"unless the server's {setting} lists it."
        )


def check_name(host: str, allowed: tuple[Network, ...], setting: str) -> None:
    """Refuse what is no name, and the name of the server's own machine."""
    if not NAME.fullmatch(host) or NUMERIC.fullmatch(host):
        raise ValueError("Its host must be a name, or an address in its usual form.")
    if host == "localhost" or host.endswith(".localhost"):
        check_host("127.0.0.1", allowed, setting)


def reachable(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """Whether requests may go to an address: a public one, or one of a network that is allowed."""
    bare = carried(address)
    return public(bare) or any(bare in network for network in allowed)


def carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does (mapped, 6to4, NAT64)."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def public(address: Address) -> bool:
    """Whether an address is one host's, and reached over the internet alone."""
    if isinstance(address, IPv6Address) and address not in PUBLIC_V6:
        return False
    return address.is_global and not address.is_multicast and address not in INNER
