"""A real server on a real port, and a worker's hand to move its jobs along."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from redis import Redis

from app import access
from app.main import create_app
from contracts.settings import Settings
from tests.app.hand import Hand


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the app from a thread; yield its base URL."""
    config = uvicorn.Config(create_app(settings), port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session", autouse=True)
def no_rest() -> Iterator[None]:
    """A server that is open looks for keys with every request: tests with keys and without share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "OPEN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def server(valkey_url: str, data_dir: Path) -> Iterator[str]:
    # Without a sweep, which writes to Redis whenever it is due: tests look at what their requests wrote.
    with serving(Settings(redis_url=valkey_url, data_dir=data_dir, keep_days=0)) as url:
        yield url


@pytest.fixture
def client(server: str, redis_url: str) -> Iterator[httpx.Client]:
    """An HTTP client of a server whose Redis is empty."""
    assert redis_url
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client


@pytest.fixture
def submit(client: httpx.Client, redis: Redis, data_dir: Path) -> Callable[..., Hand]:
    """Submit a generation and return the hand that moves it along."""

    def submit(**body: object) -> Hand:
        response = client.post("/v1/generations", json={"prompt": "a red circle", **body})
        assert response.status_code == 202, response.text
        return Hand(redis, data_dir / "artifacts", response.json()["id"])

    return submit
