"""One POST: where it goes, where it refuses to go, and when it gives up."""

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.webhooks.sending import Answer, Sender
from outbound.posting import resolve
from tests.app.webhooks.receiver import Receiver, receiving
from tests.ports import nobody

LOOPBACK = (ip_network("127.0.0.0/8"),)
NO_WAY = Answer(detail="The host has no address that webhooks may reach.")
TLS = Path(__file__).parent / "tls"


class Names:
    """A name server: one answer after the other, the last again and again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = answers, 0

    async def resolve(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def post(sender: Sender, url: str, body: str = "{}") -> Answer:
    return asyncio.run(sender.post(url, {"X-Given": "yes"}, body.encode()))


def by_name(receiver: Receiver, scheme: str = "http") -> str:
    return f"{scheme}://hooks.example:{receiver.port}/hook?a=b"


def test_the_message_arrives_as_it_was_given() -> None:
    with receiving(204) as receiver:
        assert post(Sender(LOOPBACK), f"{receiver.url}?a=%20b", '{"ä": 1}') == Answer(204)
        [call] = receiver.calls
    assert (call.path, call.body) == ("/hook?a=%20b", '{"ä": 1}')
    assert call.headers == {"host": f"127.0.0.1:{receiver.port}", "content-length": "9", "x-given": "yes"}


@pytest.mark.parametrize("code", [200, 201, 299])
def test_any_2xx_is_success(code: int) -> None:
    with receiving(code) as receiver:
        assert post(Sender(LOOPBACK), receiver.url).accepted


@pytest.mark.parametrize("code", [304, 400, 410, 500, 503])
def test_any_other_answer_is_none(code: int) -> None:
    with receiving(code) as receiver:
        answer = post(Sender(LOOPBACK), receiver.url)
    assert not answer.accepted
    assert answer.status_code == code
    assert answer.detail
    assert answer.detail.startswith(f"The receiver answered {code}")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code: int) -> None:
    with receiving(204) as inside:

        def elsewhere(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(code)
            handler.send_header("Location", inside.url)
            handler.end_headers()

        with receiving(elsewhere) as receiver:
            answer = post(Sender(LOOPBACK), receiver.url)
        assert answer == Answer(code, f"The receiver answered {code}; redirects are not followed.")
        assert inside.calls == []


def test_an_inner_address_is_refused_however_the_url_came_here() -> None:
    with receiving() as receiver:
        answer = post(Sender(), receiver.url)
        assert receiver.calls == []
    assert answer.detail
    assert "inner address" in answer.detail


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"], []]
)
def test_a_name_that_stands_for_an_inner_address_is_refused(addresses: list[str]) -> None:
    with receiving() as receiver:
        assert post(Sender(resolve=Names(addresses).resolve), by_name(receiver)) == NO_WAY
        assert receiver.calls == []


def test_a_name_that_stands_for_nothing_is_refused_in_the_same_words() -> None:
    async def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert post(Sender(resolve=unknown), "https://hooks.example/") == NO_WAY


def test_the_machines_own_resolver_is_asked() -> None:
    assert set(asyncio.run(resolve("localhost", 80))) <= {"127.0.0.1", "::1"}


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked() -> None:
    # A name server that gives a good address first and an inner one from then on.
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    with receiving(204) as receiver:
        assert post(Sender(LOOPBACK, resolve=names.resolve), by_name(receiver)).accepted
        [call] = receiver.calls
    assert names.asked == 1
    assert call.headers["host"] == f"hooks.example:{receiver.port}"


def test_of_several_addresses_one_that_answers_is_found() -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])  # nobody listens on the first
    with receiving(204) as receiver:
        assert post(Sender(LOOPBACK, resolve=names.resolve), by_name(receiver)).accepted


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(204) as proxy, receiving(204) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert post(Sender(LOOPBACK), receiver.url).accepted
        assert (len(proxy.calls), len(receiver.calls)) == (0, 1)


def test_nobody_there() -> None:
    with nobody() as port:
        answer = post(Sender(LOOPBACK), f"http://127.0.0.1:{port}/hook")
    assert answer.status_code is None
    assert answer.detail
    assert answer.detail.startswith("The connection failed: ")


def silent(receiver: Receiver, handler: BaseHTTPRequestHandler) -> None:
    receiver.hang(handler)


def trickling(receiver: Receiver, handler: BaseHTTPRequestHandler) -> None:
    """Send a head without end, a byte at a time: each read succeeds soon enough."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not receiver.released.wait(0.05):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("behaviour", [silent, trickling])
def test_a_receiver_that_does_not_answer_in_time(behaviour: object) -> None:
    with receiving(204) as receiver:
        receiver.answers = [lambda handler: behaviour(receiver, handler)]  # type: ignore[operator]
        began = time.monotonic()
        answer = post(Sender(LOOPBACK, timeout=0.7), receiver.url)
        assert time.monotonic() - began < 5
    assert answer == Answer(detail="The receiver did not answer within 0.7 s.")


def test_a_name_server_that_does_not_answer_in_time() -> None:
    async def slow(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    answer = post(Sender(timeout=0.1, resolve=slow), "https://hooks.example/")
    assert answer == Answer(detail="The receiver did not answer within 0.1 s.")


def test_a_body_without_end_is_not_read() -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(2**20))
            sent += 1

    with receiving(endless) as receiver:
        assert post(Sender(LOOPBACK), receiver.url) == Answer(200)
    assert sent < 100  # MiB: what the sockets' buffers took before the connection was closed


def test_what_is_no_http_at_all() -> None:
    def mail(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 mail.example ESMTP\r\n")

    with receiving(mail) as receiver:
        answer = post(Sender(LOOPBACK), receiver.url)
    assert answer == Answer(detail="The receiver hung up, or answered with something other than HTTP.")


@pytest.mark.parametrize(("name", "accepted"), [("hooks.example", True), ("other.example", False)])
def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    name: str, *, accepted: bool
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "receiver.pem")
    trusting = ssl.create_default_context(cafile=str(TLS / "authority.pem"))
    with receiving(204, tls=server) as receiver:
        sender = Sender(LOOPBACK, resolve=Names(["127.0.0.1"]).resolve, tls=trusting)
        answer = post(sender, f"https://{name}:{receiver.port}/")
        assert len(receiver.calls) == accepted
    assert answer.accepted == accepted
    assert accepted or "Hostname mismatch" in (answer.detail or "")


def test_an_unknown_authority_is_not_trusted() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "receiver.pem")
    with receiving(204, tls=server) as receiver:
        answer = post(Sender(LOOPBACK, resolve=Names(["127.0.0.1"]).resolve), by_name(receiver, "https"))
        assert receiver.calls == []
    assert "CERTIFICATE_VERIFY_FAILED" in (answer.detail or "")
