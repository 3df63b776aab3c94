"""A TCP proxy that cuts connections or answers itself: what a client meets on a bad network."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Unreliable:
    """Forwards to a port of this machine.

    Attributes:
        budgets: for each coming connection the bytes of answer it lets through before it is cut, or the whole
            answer it gets in place of the server's; then no limit.
        connections: how many there have been.
    """

    target: int
    budgets: list[int | bytes] = field(default_factory=list[int | bytes])
    connections: int = 0
    url: str = ""

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self.connections += 1
                budget = self.budgets.pop(0) if self.budgets else None
                if isinstance(budget, bytes):
                    self.answer(near, budget)
                else:
                    threading.Thread(target=self.forward, args=(near, budget), daemon=True).start()

    def answer(self, near: socket.socket, content: bytes) -> None:
        with near:
            near.recv(1 << 16)
            near.sendall(content)

    def forward(self, near: socket.socket, budget: int | None) -> None:
        with near, socket.create_connection(("127.0.0.1", self.target)) as far, suppress(OSError):
            back = threading.Thread(target=self.upstream, args=(near, far), daemon=True)
            back.start()
            while data := far.recv(1 << 16):
                allowed = data if budget is None else data[:budget]
                near.sendall(allowed)
                if budget is not None:
                    budget -= len(allowed)
                    if budget <= 0:
                        break
            near.shutdown(socket.SHUT_RDWR)
            back.join()

    def upstream(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 16):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)


def canned(status: str, content: str, **headers: str) -> bytes:
    """A whole answer, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", content]).encode()


HTML = canned("200 OK", "<html>data: hello</html>\n\n", Content_Type="text/html")
"""What another program on the port might say."""


def busy(seconds: int) -> bytes:
    """What the server says while its store is away."""
    problem = '{"code": "redis_unavailable", "detail": "The store is away."}'
    return canned("503 Service Unavailable", problem, Retry_After=str(seconds))


def limited(seconds: int) -> bytes:
    """What the server says to an API key that has used up its requests of the minute."""
    problem = '{"code": "rate_limited", "detail": "0 are left."}'
    return canned("429 Too Many Requests", problem, Retry_After=str(seconds))


@contextmanager
def unreliable(target: str, *budgets: int | bytes) -> Iterator[Unreliable]:
    """Run a proxy in front of a server's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Unreliable(int(target.rsplit(":", 1)[1]), list(budgets))
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
