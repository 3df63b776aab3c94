"""A receiver of webhooks: a real HTTP server on loopback that answers as a test says."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = int | Callable[[BaseHTTPRequestHandler], None]
"""A status code, or what to do with the connection."""


@dataclass(frozen=True)
class Call:
    """What came."""

    path: str
    headers: dict[str, str]
    body: str
    at: float


@dataclass
class Receiver:
    """Where it listens, and what came; `answers` are given in order, the last again and again."""

    answers: list[Answer]
    calls: list[Call] = field(default_factory=list[Call])
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def called(self, times: int, within: float = 30) -> list[Call]:
        """Wait until so many calls have come; return them."""
        end = time.monotonic() + within
        while len(self.calls) < times and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.calls) >= times, self.calls
        return self.calls[:times]

    def hang(self, _handler: BaseHTTPRequestHandler) -> None:
        """Say nothing until the test has ended."""
        self.released.wait()


@contextmanager
def receiving(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver; without answers it takes everything."""
    receiver = Receiver(list(answers) or [204])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.answers[min(len(receiver.calls), len(receiver.answers) - 1)]
            receiver.calls.append(Call(self.path, headers, body, time.monotonic()))
            if callable(answer):
                answer(self)
            else:
                self.send_response(answer)
                self.end_headers()

        def log_message(self, *_: object, **__: object) -> None:
            """Do not write to the test's output."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object, **__: object) -> None:
            """Senders hang up: that is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
