"""What is kept for long enough goes, all of it, and nothing else does."""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import expiry
from app.artifacts import Artifacts
from app.services import Services
from contracts.jobs import Status, hash_fields, id_at, now
from contracts.keys import (
    JOBS_KEY,
    checkpoint_path,
    events_key,
    idempotency_key,
    job_key,
    preview_path,
    sweep_key,
)
from contracts.settings import Settings
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from contracts.webhooks import Delivery, DeliveryStatus
from tests.app.conftest import serving
from tests.app.hand import PNG, Hand

KEEP = timedelta(days=2)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "INTERVAL", 0.05)
    monkeypatch.setattr(expiry, "ORPHANS_INTERVAL", 0.05)


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, data_dir=tmp_path, keep_days=KEEP.days)


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server of its own, which sweeps all the time."""
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def submitted(client: httpx.Client, redis: Redis, settings: Settings, key: str = "") -> Hand:
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post("/v1/generations", json={"prompt": "a red circle"}, headers=headers)
    assert answer.status_code == 202
    return Hand(redis, Path(settings.artifacts), answer.json()["id"])


def aged(hand: Hand, age: timedelta) -> Hand:
    """The same job, as if it had been submitted so long ago. The list of all jobs names it last."""
    old = Hand(hand.redis, hand.artifacts, id_at((now() - age).timestamp(), bits=secrets.randbits(80)))
    record = hand.record
    for key_of in (job_key, events_key):
        hand.redis.rename(key_of(hand.id), key_of(old.id))
    hand.redis.hset(job_key(old.id), "id", old.id)
    if record.idempotency_key:
        hand.redis.set(idempotency_key(record.idempotency_key), f'{{"id":"{old.id}","body":"another"}}')
    if (hand.artifacts / hand.id).exists():
        (hand.artifacts / hand.id).rename(hand.artifacts / old.id)
    hand.redis.zrem(JOBS_KEY, hand.id)
    hand.redis.zadd(JOBS_KEY, {old.id: 0})
    return old


def ended(hand: Hand, at: datetime) -> Hand:
    hand.start()
    hand.search(1, 2)
    hand.preview()
    hand.file(checkpoint_path(hand.id, 1, 2), b"state")
    hand.finish()
    hand.redis.hset(job_key(hand.id), mapping=hash_fields(completed_at=at))
    return hand


def swept(client: httpx.Client, hand: Hand) -> None:
    end = time.monotonic() + 20
    while client.get(f"/v1/generations/{hand.id}").status_code != 404:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_ended_job_says_when_it_expires(client: httpx.Client, redis: Redis, settings: Settings) -> None:
    hand = submitted(client, redis, settings)
    assert client.get(f"/v1/generations/{hand.id}").json()["expires_at"] is None
    ended(hand, now())
    document = client.get(f"/v1/generations/{hand.id}").json()
    times = (datetime.fromisoformat(document[name]) for name in ("expires_at", "completed_at"))
    assert next(times) - next(times) == KEEP


def test_what_has_expired_is_gone_with_all_that_belongs_to_it(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    hand = submitted(client, redis, settings, key="once")
    old = aged(ended(hand, now() - KEEP - timedelta(minutes=1)), 2 * KEEP)
    swept(client, old)
    for path in ("", "/events", "/trace", "/images/0", "/previews/5"):
        assert client.get(f"/v1/generations/{old.id}{path}").status_code == 404
    assert client.get("/v1/generations").json()["data"] == []
    assert not (old.artifacts / old.id).exists()
    assert not [key for key in redis.scan_iter("*") if old.id in key]
    again = client.post("/v1/generations", json={"prompt": "another"}, headers={"Idempotency-Key": "once"})
    assert again.status_code == 202
    assert "idempotency-replayed" not in again.headers


def test_a_webhook_that_is_still_tried_keeps_its_job_for_a_day(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    over = timedelta(hours=1)

    def left(status: DeliveryStatus, past: timedelta) -> Hand:
        hand = ended(submitted(client, redis, settings), now() - KEEP - past)
        hand.redis.hset(job_key(hand.id), mapping=hash_fields(delivery=Delivery(status=status)))
        return aged(hand, 2 * KEEP)

    tried = left(DeliveryStatus.PENDING, over)
    for gone in (left(DeliveryStatus.FAILED, over), left(DeliveryStatus.PENDING, timedelta(days=1) + over)):
        swept(client, gone)
    time.sleep(0.3)  # several sweeps more
    assert client.get(f"/v1/generations/{tried.id}").status_code == 200


def test_nothing_goes_that_runs_waits_or_ended_later(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    waiting = aged(submitted(client, redis, settings), 2 * KEEP)
    running = submitted(client, redis, settings)
    running.start()
    running.file(preview_path(running.id, 3), PNG)
    running = aged(running, 2 * KEEP)
    recent = aged(ended(submitted(client, redis, settings), now() - KEEP + timedelta(minutes=5)), 2 * KEEP)
    gone = aged(ended(submitted(client, redis, settings), now() - KEEP - timedelta(minutes=5)), 2 * KEEP)
    swept(client, gone)
    time.sleep(0.3)  # several sweeps more
    for hand in (waiting, running, recent):
        assert client.get(f"/v1/generations/{hand.id}").status_code == 200
    assert (running.artifacts / preview_path(running.id, 3)).exists()
    assert client.get(f"/v1/generations/{recent.id}/images/0").status_code == 200


def test_folders_of_jobs_that_are_gone_are_swept_once_they_would_have_expired(
    client: httpx.Client, redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    store = Path(settings.artifacts)
    store.mkdir()
    old = id_at((now() - 2 * KEEP).timestamp(), bits=7)
    young = id_at(now().timestamp(), bits=7)
    for name in (old, young, "not-ours"):
        Hand(redis, tmp_path, name).file(preview_path(name, 3), PNG)
        (tmp_path / name).rename(store / name)  # at once: a sweep may come between a folder and its file
    end = time.monotonic() + 20
    while (store / old).exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (store / young).exists()
    assert (store / "not-ours").exists()
    assert client.get("/healthz").status_code == 200


def test_a_sweep_that_was_cut_off_is_finished_by_the_next(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    hand = aged(ended(submitted(client, redis, settings), now()), 2 * KEEP)
    (hand.artifacts / hand.id / "images" / "0.png").unlink()  # the first thing that went
    hand.redis.hset(job_key(hand.id), mapping=hash_fields(completed_at=now() - KEEP))
    swept(client, hand)
    assert not (hand.artifacts / hand.id).exists()


def test_a_job_that_cannot_be_removed_holds_up_no_other(
    client: httpx.Client, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = Artifacts.emptied

    def refusing(store: Artifacts, path: str) -> None:
        if path.rpartition("/")[2] < limit:
            raise PermissionError(path)
        emptied(store, path)

    limit = id_at((now() - 3.5 * KEEP).timestamp())
    monkeypatch.setattr(Artifacts, "emptied", refusing)
    long_ago = now() - 2 * KEEP
    stuck = aged(ended(submitted(client, redis, settings), long_ago), 4 * KEEP)
    swept(client, aged(ended(submitted(client, redis, settings), long_ago), 3 * KEEP))
    assert client.get(f"/v1/generations/{stuck.id}").status_code == 200


def test_a_key_that_names_a_later_job_outlives_the_earlier_one(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    first = submitted(client, redis, settings, key="nightly")
    redis.delete(idempotency_key("nightly"))  # a day later
    second = submitted(client, redis, settings, key="nightly")
    cancel = write_args(allowed=[Status.QUEUED], status=Status.CANCELED)
    redis.eval(WRITE_SCRIPT, 2, *write_keys(first.id), *cancel)
    assert client.delete(f"/v1/generations/{first.id}").status_code == 204
    assert submitted(client, redis, settings, key="nightly").id == second.id


def test_a_clock_set_forward_on_one_side_costs_nothing(
    client: httpx.Client, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = ended(submitted(client, redis, settings), now())
    ahead = time.time() + 365 * 86400
    monkeypatch.setattr(expiry, "time", SimpleNamespace(time=lambda: ahead))
    time.sleep(0.3)
    assert client.get(f"/v1/generations/{hand.id}/images/0").status_code == 200


def test_with_keep_days_0_nothing_expires(redis: Redis, settings: Settings) -> None:
    forever = settings.model_copy(update={"keep_days": 0.0})
    with serving(forever) as url, httpx.Client(base_url=url, timeout=30) as client:
        hand = aged(ended(submitted(client, redis, settings), now() - 1000 * KEEP), 2000 * KEEP)
        time.sleep(0.3)
        document = client.get(f"/v1/generations/{hand.id}").json()
        assert (document["status"], document["expires_at"]) == ("succeeded", None)


def test_a_record_that_cannot_be_read_holds_up_no_other(
    client: httpx.Client, redis: Redis, settings: Settings
) -> None:
    redis.set(sweep_key("expired"), "not before the record is broken")
    broken, fine = (
        aged(ended(submitted(client, redis, settings), now() - KEEP - timedelta(minutes=5)), 2 * KEEP)
        for _ in range(2)
    )
    redis.hset(job_key(broken.id), "progress", "broken")
    redis.delete(sweep_key("expired"))
    swept(client, fine)
    assert redis.exists(job_key(broken.id))
    assert client.get("/v1/generations").json()["data"] == []  # nor a list


def test_a_server_ends_though_a_client_takes_the_word_to_stop_for_a_timeout(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    async def swallows(services: Services, keep: timedelta) -> None:
        del services, keep
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as stop:
            if told.is_set():
                raise
            told.set()
            raise RedisTimeoutError from stop

    monkeypatch.setattr(expiry, "sweep", swallows)
    with serving(settings) as url:
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
    assert told.is_set()
