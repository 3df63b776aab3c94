"""Webhooks as the API shows them: what is accepted, whose secret is whose, and how a delivery stands."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from app.webhooks.signing import secret_of
from contracts.jobs import hash_fields
from contracts.keys import OUTBOX_KEY, OUTCOMES_KEY, WEBHOOK_SECRET_KEY, job_key
from contracts.settings import Settings
from contracts.webhooks import Delivery
from tests.app.conftest import serving
from tests.app.hand import Hand
from tests.app.test_bad_input import refused
from tests.app.test_metrics import scraped

HOOK = {"url": "https://hooks.example/x", "events": ["completed"]}


@pytest.fixture
def with_secret(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a server whose settings have a secret."""
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, webhook_secret=SecretStr("s" * 32))
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_a_webhook_is_stored_with_its_events(client: httpx.Client) -> None:
    for posted in (HOOK, {"url": HOOK["url"]}):
        job = client.post("/v1/generations", json={"prompt": "x", "webhook": posted}).json()
        assert job["request"]["webhook"] == {"events": ["completed", "failed", "canceled"], **posted}
        assert job["webhook"] is None


@pytest.mark.parametrize(
    ("webhook", "pointer", "detail"),
    [
        ("https://hooks.example/", "/webhook", "Must be a JSON object."),
        ({}, "/webhook/url", "Is required."),
        ({"url": "https://x" * 500}, "/webhook/url", "at most 2048"),
        ({"url": "ftp://hooks.example/"}, "/webhook/url", "http or https"),
        ({"url": "http://127.0.0.1/"}, "/webhook/url", "inner address"),
        ({"url": "http://169.254.169.254/"}, "/webhook/url", "inner address"),
        ({**HOOK, "events": []}, "/webhook/events", "Must not be empty."),
        ({**HOOK, "events": "completed"}, "/webhook/events", "Must be an array."),
        ({**HOOK, "events": ["complete"]}, "/webhook/events/0", "Did you mean 'completed'?"),
        ({**HOOK, "events": ["failed", "failed"]}, "/webhook/events", "twice"),
        ({**HOOK, "event": []}, "/webhook/event", "Did you mean 'events'?"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused(
    client: httpx.Client,
    webhook: object,
    pointer: str,
    detail: str,
) -> None:
    problem = refused(
        client.post("/v1/generations", json={"prompt": "x", "webhook": webhook}), 422, "invalid_request"
    )
    [error] = problem["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]


def test_a_delivery_is_shown_once_there_is_one(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    hand = submit(webhook=HOOK)
    hand.start()
    hand.finish()
    url = f"/v1/generations/{hand.id}"
    before = client.get(url)
    assert before.json()["webhook"]["status"] == "pending"
    fields: Any = hash_fields(delivery=Delivery(attempts=1, status_code=500, detail="d"))
    redis.hset(job_key(hand.id), mapping=fields)
    after = client.get(url, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    shown = after.json()["webhook"]
    assert (shown["status"], shown["attempts"], shown["status_code"]) == ("pending", 1, 500)
    assert client.delete(url).status_code == 204
    assert not redis.exists(OUTBOX_KEY)


def test_a_job_canceled_while_it_waits_is_told_of(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    told, other = submit(webhook={**HOOK, "events": ["canceled"]}), submit(webhook=HOOK)
    for hand in (told, other):
        client.post(f"/v1/generations/{hand.id}/cancel")
    assert redis.zrange(OUTBOX_KEY, 0, -1) == [told.id]


def test_each_key_has_its_secret(client: httpx.Client, redis: Redis) -> None:
    answer = client.get("/v1/webhooks/secret")
    assert answer.headers["cache-control"] == "no-store"
    found = [answer.json()["secret"]]
    assert client.get("/v1/webhooks/secret").json()["secret"] == found[0]
    for name in "ab":
        key, secret = new_key(name, Limits())
        Keyring(redis).add(key)
        headers = {"Authorization": f"Bearer {secret}"}
        found.append(client.get("/v1/webhooks/secret", headers=headers).json()["secret"])
        assert found[-1] == secret_of(str(redis.get(WEBHOOK_SECRET_KEY)), key.id)
    assert len(set(found)) == 3
    assert all(secret.startswith("whsec_") for secret in found)
    refused(client.get("/v1/webhooks/secret"), 401, "unauthorized")


def test_the_secret_of_the_settings_is_kept_nowhere(with_secret: httpx.Client, redis: Redis) -> None:
    assert with_secret.get("/v1/webhooks/secret").json()["secret"] == secret_of("s" * 32, None)
    assert not redis.exists(WEBHOOK_SECRET_KEY)


def test_metrics(client: httpx.Client, redis: Redis, submit: Callable[..., Hand]) -> None:
    assert scraped(client)["rollover_webhooks_waiting",] == 0
    hand = submit(webhook=HOOK)
    hand.start()
    hand.finish()
    redis.zincrby(OUTBOX_KEY, -9000, hand.id)
    redis.hset(OUTCOMES_KEY, "retried", 3)
    samples = scraped(client)
    assert samples["rollover_webhooks_waiting",] == 1
    assert samples["rollover_webhooks_late_seconds",] >= 9
    assert samples["rollover_webhooks_total", "retried"] == 3
    assert samples["rollover_webhooks_total", "delivered"] == 0
