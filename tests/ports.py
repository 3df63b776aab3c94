"""Ports of this machine that no other process of a test run takes meanwhile."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

LEAST, LOWER_THAN = 10_000, 30_000
"""Below those that the kernel gives to whoever asks for any: nobody gets these by chance."""


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which nobody listens, and nobody can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def free_port() -> int:
    """A port for a program that is about to start."""
    # Not by `random` itself: pytest-randomly seeds that alike in the processes of a run.
    for port in random.SystemRandom().sample(range(LEAST, LOWER_THAN), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("all are taken")
