"""Signatures by Standard Webhooks, and whose secret is whose."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from redis import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from app.store import connect
from app.webhooks.signing import root_secret, secret_of, signed
from contracts.settings import Settings
from tests.app.webhooks.conftest import SECRET, settings_of

BODY = '{"prompt": "zwei Kreise, größer"}'


def test_the_specifications_own_example() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', at
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_verifies_what_is_signed_whatever_the_clocks_zone() -> None:
    secret = secret_of(SECRET, "key_1")
    at = datetime.now(timezone(timedelta(hours=-7)))
    headers = dict(signed(secret, "msg_1", BODY, at))
    assert Webhook(secret).verify(BODY, headers) == {"prompt": "zwei Kreise, größer"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.replace("zwei", "drei"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(SECRET, "key_2")).verify(BODY, headers)


def test_each_key_of_each_server_has_a_secret_of_its_own() -> None:
    secrets = [
        secret_of(root, owner) for root in (SECRET, SECRET[::-1]) for owner in (None, "key_1", "key_2")
    ]
    assert len(set(secrets)) == len(secrets)
    assert secret_of(SECRET, "key_1") == secrets[1]


def test_without_a_setting_one_is_made_and_kept(redis: Redis, redis_url: str) -> None:
    async def ask() -> list[str]:
        async with connect(redis_url) as client:
            return await asyncio.gather(
                *(root_secret(client, Settings(redis_url=redis_url)) for _ in range(8))
            )

    made = asyncio.run(ask())
    assert len(set(made)) == 1
    assert len(made[0]) > 40
    assert asyncio.run(ask()) == made
    redis.flushall()
    assert asyncio.run(ask()) != made


def test_the_setting_goes_before(redis: Redis, redis_url: str) -> None:
    async def ask() -> str:
        async with connect(redis_url) as client:
            return await root_secret(client, settings_of(redis_url))

    assert asyncio.run(ask()) == SECRET
    assert redis.keys("*") == []
    assert SECRET not in repr(settings_of(redis_url))
