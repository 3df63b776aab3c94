"""A real server over HTTP whose jobs a hand moves along, so that a client can be tried at every moment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from app import access
from contracts.settings import Settings
from rollover import Client
from tests.app.conftest import serving
from tests.app.hand import Hand


@pytest.fixture(scope="session", autouse=True)
def no_rest() -> Iterator[None]:
    """A server that is open looks for keys with every request: tests with keys and without share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "OPEN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rollover")


@pytest.fixture(scope="session")
def server(valkey_url: str, data_dir: Path) -> Iterator[str]:
    # Without a sweep: it lives as long as the run, and its Redis is that of tests which look at every key.
    with serving(Settings(redis_url=valkey_url, data_dir=data_dir, keep_days=0)) as url:
        yield url


@pytest.fixture
def client(server: str, redis_url: str) -> Iterator[Client]:
    assert redis_url
    with Client(server) as client:
        yield client


@pytest.fixture
def hand(redis: Redis, data_dir: Path) -> Callable[[str], Hand]:
    """The hand that moves a job along."""
    return lambda job_id: Hand(redis, data_dir / "artifacts", job_id)
