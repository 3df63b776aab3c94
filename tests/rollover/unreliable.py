"""A TCP proxy that cuts connections: what a client meets on a bad network."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Unreliable:
    """Forwards to a port of this machine.

    Attributes:
        budgets: bytes of answer that each coming connection lets through before it is cut; then no limit.
        connections: how many there have been.
    """

    target: int
    budgets: list[int] = field(default_factory=list[int])
    connections: int = 0
    url: str = ""

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self.connections += 1
                budget = self.budgets.pop(0) if self.budgets else None
                threading.Thread(target=self.forward, args=(near, budget), daemon=True).start()

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


@contextmanager
def unreliable(target: str, *budgets: int) -> Iterator[Unreliable]:
    """Run a proxy in front of a server's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Unreliable(int(target.rsplit(":", 1)[1]), list(budgets))
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
