"""Where webhooks may go, and above all where not."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.destinations import Destination, destination, reachable

INNER = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
]
INNER_V6 = ["::/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b:1::/48", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", Destination("https", "example.com", 443, "/")),
        ("http://Example.COM.:8080/a/b?c=%20d", Destination("http", "example.com", 8080, "/a/b?c=%20d")),
        ("https://xn--bcher-kva.example/?x", Destination("https", "xn--bcher-kva.example", 443, "/?x")),
        ("http://8.8.8.8/", Destination("http", "8.8.8.8", 80, "/")),
        ("https://[2606:4700::1111]:443/", Destination("https", "2606:4700::1111", 443, "/")),
        ("https://hooks_1.example/x@y", Destination("https", "hooks_1.example", 443, "/x@y")),
        ("HTTPS://example.com", Destination("https", "example.com", 443, "/")),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: Destination) -> None:
    assert destination(url) == expected


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com:443/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
    ],
)
def test_the_host_header(url: str, authority: str) -> None:
    assert destination(url).authority == authority


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("", "visible ASCII"),
        ("https://example.com/ä", "visible ASCII"),
        ("https://exa\tmple.com/", "visible ASCII"),
        ("https://example.com/\r\nHost: x", "visible ASCII"),
        ("https://example.com /", "visible ASCII"),
        ("example.com", "http or https"),
        ("ftp://example.com/", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://example.com/", "http or https"),
        ("https://", "http or https"),
        ("https:///path", "http or https"),
        ("https://[::1", "http or https"),
        ("https://[1.2.3]/", "http or https"),
        ("https://user@example.com/", "no user name"),
        ("https://user:word@example.com/", "no user name"),
        ("https://@example.com/", "no user name"),
        ("https://example.com/#x", "no fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:22/", "port"),
        ("https://example.com:1023/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:x/", "port"),
        ("https://exam\\ple.com/", "must be a name"),
        ("https://a..b/", "must be a name"),
        ("https://%31%32%37.1/", "must be a name"),
        ("http://2130706433/", "must be a name"),
        ("http://127.1/", "must be a name"),
        ("http://0x7f.0.0.0x1/", "must be a name"),
        ("http://0177.0.0.1/", "must be a name"),
        (f"https://{'a' * 64}.example/", "must be a name"),
        ("http://127.0.0.1/", "inner address"),
        ("http://127.0.0.1./", "inner address"),
        ("http://169.254.169.254/latest/meta-data", "inner address"),
        ("http://10.0.0.1:8080/", "inner address"),
        ("http://[::1]/", "inner address"),
        ("http://[::]/", "inner address"),
        ("http://[::ffff:127.0.0.1]/", "inner address"),
        ("http://[fe80::1%25eth0]/", "inner address"),
        ("http://[fd00:ec2::254]/", "inner address"),
        ("http://localhost/", "inner address"),
        ("http://LOCALHOST./", "inner address"),
        ("http://a.localhost:8000/", "inner address"),
    ],
)
def test_a_url_that_webhooks_do_not_go_to(url: str, detail: str) -> None:
    with pytest.raises(ValueError, match=detail):
        destination(url)


@given(st.sampled_from(INNER).flatmap(lambda net: st.ip_addresses(v=4, network=net)))
def test_no_inner_address_is_reachable_however_it_is_written(address: IPv4Address) -> None:
    number = int(address)
    mapped, nat64 = IPv6Address(0xFFFF << 32 | number), IPv6Address((0x64FF9B << 96) | number)
    six_to_four = IPv6Address((0x2002 << 112) | number << 80 | 1)
    assert nat64.exploded.startswith("0064:ff9b:")
    assert [each for each in (address, mapped, nat64, six_to_four) if reachable(each)] == []


@given(st.sampled_from(INNER_V6).flatmap(lambda net: st.ip_addresses(v=6, network=net)))
def test_no_inner_address_of_the_new_kind_is_reachable(address: IPv6Address) -> None:
    assert not reachable(address)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_reachable(text: str) -> None:
    assert reachable(ip_address(text))


def test_what_is_allowed_is_reachable_and_nothing_beside_it() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "8.8.8.8"):
        assert reachable(ip_address(text), allowed)
    for text in ("10.2.0.1", "127.0.0.1", "fd00:2::5"):
        assert not reachable(ip_address(text), allowed)
    assert destination("http://10.1.2.3/", allowed).host == "10.1.2.3"
    with pytest.raises(ValueError, match="inner address"):
        destination("http://localhost/", allowed)
    assert destination("http://localhost/", [ip_network("127.0.0.0/8")]).host == "localhost"
