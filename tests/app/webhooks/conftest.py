"""Jobs that end with a webhook, and a deliverer at work on them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.webhooks.deliverer import deliver
from contracts.jobs import Record, Status
from contracts.keys import JOBS_KEY, job_key
from contracts.requests import Caps
from contracts.resolution import accept
from contracts.settings import Settings
from tests.app.hand import Hand

NETWORKS = (ip_network("127.0.0.0/8"),)
SECRET = "a secret of thirty-two characters"  # noqa: S105


def settings_of(redis_url: str, **changes: Any) -> Settings:  # noqa: ANN401
    """Settings under which receivers may be on this machine and nothing takes long."""
    given = {"webhook_networks": NETWORKS, "webhook_secret": SECRET, "webhook_retry_seconds": 0.1}
    return Settings(redis_url=redis_url, **{**given, "webhook_timeout_seconds": 20.0, **changes})


@contextmanager
def delivering(redis_url: str, **changes: Any) -> Iterator[None]:  # noqa: ANN401
    """Deliver from a thread."""
    with asyncio.Runner() as runner:
        stopping = asyncio.Event()
        work = deliver(settings_of(redis_url, **changes), redis_url, stopping)
        thread = threading.Thread(target=runner.run, args=[work])
        thread.start()
        try:
            yield
        finally:
            runner.get_loop().call_soon_threadsafe(stopping.set)
            thread.join()


def stored(redis: Redis, folder: Path, url: str, owner: str | None = None, **webhook: Any) -> Hand:  # noqa: ANN401
    """Store a job that wants a webhook; the hand that moves it along."""
    body = {"prompt": "a red circle", "webhook": {"url": url, **webhook}}
    record = Record.new(accept(body, caps=Caps(networks=NETWORKS)), owner=owner)
    fields: Any = record.to_hash()
    redis.hset(job_key(record.id), mapping=fields)
    redis.zadd(JOBS_KEY, {record.id: 0})
    return Hand(redis, folder, record.id)


@pytest.fixture
def queue(redis: Redis, tmp_path: Path) -> Callable[..., Hand]:
    """Store jobs that want webhooks."""
    return partial(stored, redis, tmp_path)


@pytest.fixture
def end(queue: Callable[..., Hand]) -> Callable[..., Hand]:
    """A job that wanted a webhook and has succeeded."""

    def end(url: str, owner: str | None = None, **webhook: Any) -> Hand:  # noqa: ANN401
        hand = queue(url, owner, **webhook)
        hand.start()
        hand.search(1, 2)
        hand.finish(Status.SUCCEEDED)
        return hand

    return end
