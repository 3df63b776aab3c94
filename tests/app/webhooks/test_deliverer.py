"""Deliveries to real receivers: verified, repeated, given up, and none in another's way."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from standardwebhooks import Webhook

from app.keyring import Keyring, Limits, new_key
from app.webhooks import deliverer
from app.webhooks.payload import payload
from app.webhooks.signing import secret_of
from contracts.jobs import Status, document
from contracts.keys import OUTBOX_KEY, job_key
from contracts.webhooks import Delivery, DeliveryStatus, webhook_id
from tests.app.hand import Hand
from tests.app.webhooks.conftest import SECRET, delivering, stored
from tests.app.webhooks.receiver import Call, receiving
from tests.chaos.valkey import Valkey


def settled(hand: Hand, *, within: float = 30, attempts: int = 0) -> Delivery:
    """Wait until a delivery has ended, or has had so many tries."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        delivery = hand.record.delivery
        assert delivery
        if delivery.status is not DeliveryStatus.PENDING or 0 < attempts <= delivery.attempts:
            return delivery
        time.sleep(0.02)
    raise AssertionError(hand.record.delivery)


def verified(call: Call, owner: str | None = None) -> Any:  # noqa: ANN401
    """What a receiver reads with the official library."""
    return Webhook(secret_of(SECRET, owner)).verify(call.body, call.headers)


def test_a_webhook_is_delivered_and_verified(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving(204) as receiver, delivering(redis_url):
        hand = end(receiver.url, owner=None)
        delivery = settled(hand)
        [call] = receiver.calls
    assert call.headers["webhook-id"] == webhook_id(hand.id) == "msg_" + hand.id.removeprefix("gen_")
    assert call.headers["content-type"] == "application/json"
    message = verified(call)
    record = hand.record
    assert (message["type"], message["data"]["id"]) == ("generation.completed", hand.id)
    assert record.completed_at
    assert message["timestamp"] == record.completed_at.isoformat().replace("+00:00", "Z")
    assert message["data"] == document(record).model_dump(mode="json", exclude={"webhook"})
    assert (delivery.status, delivery.attempts, delivery.status_code) == ("delivered", 1, 204)
    assert (delivery.next_attempt_at, delivery.detail) == (None, None)
    assert not redis.exists(OUTBOX_KEY)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_every_end_has_its_type(redis_url: str, queue: Callable[..., Hand], status: Status) -> None:
    with receiving(204) as receiver, delivering(redis_url):
        hand = queue(receiver.url)
        hand.start()
        hand.finish(status)
        settled(hand)
        [call] = receiver.calls
    assert verified(call)["type"] == f"generation.{status.value}"


def test_a_receiver_that_fails_is_tried_again_with_the_same_message(
    redis_url: str, end: Callable[..., Hand]
) -> None:
    with receiving(500) as receiver:
        receiver.answers = [500, receiver.hang, lambda handler: handler.connection.close(), 302, 204]
        # So long that only the one that hangs is given up.
        with delivering(redis_url, webhook_timeout_seconds=5.0, webhook_retry_seconds=0.02):
            hand = end(receiver.url)
            delivery = settled(hand, within=60)
        calls = receiver.called(5)
    assert (delivery.status, delivery.attempts, delivery.status_code) == ("delivered", 5, 204)
    assert len({(call.headers["webhook-id"], call.body) for call in calls}) == 1
    assert all(verified(call) for call in calls)


def test_a_dead_receiver_is_given_up(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving(503) as receiver, delivering(redis_url, webhook_attempts=3, webhook_retry_seconds=0.02):
        hand = end(receiver.url)
        delivery = settled(hand)
        calls = receiver.called(3)
        time.sleep(0.6)
        assert receiver.calls == calls
    assert (delivery.status, delivery.attempts, delivery.status_code) == ("failed", 3, 503)
    assert delivery.detail == "The receiver answered 503."
    assert (redis.exists(OUTBOX_KEY), hand.record.status) == (0, Status.SUCCEEDED)


def test_a_receiver_that_wants_no_more_gets_no_more(redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving(410) as receiver, delivering(redis_url):
        delivery = settled(end(receiver.url))
        assert (delivery.status, delivery.attempts, len(receiver.calls)) == ("failed", 1, 1)


def test_the_state_between_tries_is_shown(redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving(500) as receiver, delivering(redis_url, webhook_retry_seconds=60):
        delivery = settled(end(receiver.url), attempts=1)
    assert delivery.last_attempt_at
    assert delivery.next_attempt_at
    assert 25 < (delivery.next_attempt_at - delivery.last_attempt_at).total_seconds() < 95
    assert (delivery.status, delivery.attempts) == ("pending", 1)


def test_slow_receivers_are_in_nobodys_way(redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving() as slow, receiving(204) as quick:
        slow.answers = [slow.hang]
        for _ in range(30):
            end(slow.url)
        # No slow one is given up before the quick one has been called.
        with delivering(redis_url, webhook_timeout_seconds=60.0):
            slow.called(deliverer.AT_ONCE_FOR_RECEIVER)
            end(quick.url)
            quick.called(1)
            assert len(slow.calls) == deliverer.AT_ONCE_FOR_RECEIVER
            slow.released.set()


def test_what_waits_for_one_receiver_is_not_looked_at_all_at_once(
    redis: Redis, redis_url: str, end: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 2.0)
    monkeypatch.setattr(deliverer.random, "random", lambda: 0.5)
    with receiving() as slow:
        slow.answers = [slow.hang]
        for _ in range(deliverer.AT_ONCE_FOR_RECEIVER + 20):
            end(slow.url)
        began, put_off = time.time(), []
        # Those under way are held for longer than the others are put off.
        with delivering(redis_url, webhook_timeout_seconds=60.0):
            while len(put_off) < 20:
                put_off: Any = redis.zrangebyscore(
                    OUTBOX_KEY, began * 1000, (began + 60) * 1000, withscores=True
                )
            slow.released.set()
    times = [score / 1000 for _, score in put_off]
    # Each is written a little later than it was chosen.
    assert times[-1] - times[0] == pytest.approx(19 * 2, abs=4)


def test_no_key_has_all_the_room(
    redis: Redis, redis_url: str, end: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "AT_ONCE", 6)
    monkeypatch.setattr(deliverer, "AT_ONCE_FOR_KEY", 3)
    monkeypatch.setattr(deliverer, "AT_ONCE_FOR_RECEIVER", 6)
    keys = [new_key(name, Limits())[0] for name in ("many", "one")]
    for key in keys:
        Keyring(redis).add(key)
    with receiving() as slow, receiving(204) as quick:
        slow.answers = [slow.hang]
        for _ in range(12):
            end(slow.url, owner=keys[0].id)
        with delivering(redis_url, webhook_timeout_seconds=60.0):
            slow.called(3)
            end(quick.url, owner=keys[1].id)
            quick.called(1)
            assert len(slow.calls) == 3
            slow.released.set()


def test_a_revoked_key_sends_nothing_more(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    live, revoked = (new_key(name, Limits())[0] for name in ("live", "revoked"))
    for key in (live, revoked):
        Keyring(redis).add(key)
    Keyring(redis).revoke(revoked)
    with receiving(204) as receiver:
        silent, heard = end(receiver.url, owner=revoked.id), end(receiver.url, owner=live.id)
        with delivering(redis_url):
            assert settled(heard).status == "delivered"
            delivery = settled(silent)
        [call] = receiver.calls
    assert verified(call, owner=live.id)["data"]["id"] == heard.id
    assert (delivery.status, delivery.detail) == ("failed", "The API key that asked for it was revoked.")
    assert not redis.exists(OUTBOX_KEY)


def test_an_inner_address_is_refused_at_the_time_of_delivery(
    redis_url: str, end: Callable[..., Hand]
) -> None:
    # The job was accepted when the network was still allowed.
    with receiving(204) as receiver:
        hand = end(receiver.url)
        with delivering(redis_url, webhook_networks=(), webhook_attempts=1):
            delivery = settled(hand)
        assert receiver.calls == []
    assert delivery.status == "failed"
    assert delivery.detail
    assert "inner address" in delivery.detail


def test_deliveries_outlive_redis_and_go_on_when_it_is_back(short_dir: Path, tmp_path: Path) -> None:
    with (
        Valkey(short_dir) as valkey,
        receiving(500) as receiver,
        Redis.from_url(valkey.url, decode_responses=True) as redis,
    ):
        hand = stored(redis, tmp_path, receiver.url)
        hand.start()
        hand.finish()
        with delivering(valkey.url, webhook_retry_seconds=1.0):
            settled(hand, attempts=1)
            valkey.kill()
            time.sleep(1.5)
            receiver.answers = [204]
            valkey.start()
            # A try that was under way is noted nowhere: the next is when its claim ends.
            assert settled(hand, within=60).status == "delivered"


def test_what_is_sent_does_not_change_with_the_tries(queue: Callable[..., Hand]) -> None:
    hand = queue("http://127.0.0.1/")
    hand.start()
    hand.finish()
    record = hand.record
    tried = record.model_copy(update={"delivery": Delivery(attempts=3, detail="d")})
    assert payload(record) == payload(tried)


def test_a_record_that_is_broken_in_any_way_stops_no_other(
    redis: Redis, redis_url: str, end: Callable[..., Hand], caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(204) as receiver:
        bad, good = end(receiver.url), end(receiver.url)
        request = bad.record.request.model_copy(update={"webhook": None})
        redis.hset(job_key(bad.id), "request", request.model_dump_json())
        with delivering(redis_url):
            assert settled(good).status is DeliveryStatus.DELIVERED
    assert f"the delivery of {bad.id} met a defect" in caplog.text


def test_a_stop_lets_what_is_under_way_end(redis_url: str, end: Callable[..., Hand]) -> None:
    def slowly(handler: Any) -> None:  # noqa: ANN401
        time.sleep(0.5)
        handler.send_response(204)
        handler.end_headers()

    with receiving(slowly) as receiver:
        hand = end(receiver.url)
        with delivering(redis_url):
            receiver.called(1)
        assert settled(hand).status == "delivered"


def test_a_wait_ends_when_told() -> None:
    async def timed() -> float:
        stopping, began = asyncio.Event(), time.monotonic()
        asyncio.get_running_loop().call_later(0.05, stopping.set)
        await deliverer.wait(stopping, 30)
        return time.monotonic() - began

    assert asyncio.run(timed()) < 10
