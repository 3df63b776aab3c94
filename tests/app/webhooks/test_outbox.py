"""What is due, who has it, and that it is nobody's twice and never lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from app.store import Store, connect
from app.webhooks.outbox import Outbox, OutboxState, state_of
from contracts.events import Canceled, Completed, Failed
from contracts.jobs import FINAL_STATUSES, JobError, Status
from contracts.keys import OUTBOX_KEY, job_key
from contracts.webhooks import Delivery, DeliveryStatus
from tests.app.hand import Hand
from tests.app.webhooks.conftest import settings_of

URL = "https://hooks.example/"
ERROR = JobError(code="model_failed", title="t", detail="d")
ENDS = {
    Status.SUCCEEDED: ("completed", Completed(nfe_spent=1, best_reward=0.5)),
    Status.FAILED: ("failed", Failed(error=ERROR)),
    Status.CANCELED: ("canceled", Canceled(nfe_spent=1)),
}
DONE = Delivery(status=DeliveryStatus.DELIVERED, attempts=1, status_code=204)
LATER = Delivery(attempts=1, status_code=500, detail="d")


def using(redis_url: str, use: Callable[[Outbox], Awaitable[Any]], hold: float = 60) -> Any:  # noqa: ANN401
    """Do something with an outbox."""

    async def run() -> Any:  # noqa: ANN401
        async with connect(redis_url) as redis:
            return await use(Outbox(redis, settings_of(redis_url), hold))

    return asyncio.run(run())


def waiting(redis: Redis) -> list[str]:
    ids: Any = redis.zrange(OUTBOX_KEY, 0, -1)
    return ids


def sooner(redis: Redis, hand: Hand, seconds: float) -> None:
    """Have what waits be due sooner, as when so much time has gone by: a test that waits may wait longer."""
    redis.zincrby(OUTBOX_KEY, -1000 * seconds, hand.id)


@pytest.mark.parametrize("status", FINAL_STATUSES)
@pytest.mark.parametrize("events", [None, ["completed"], ["failed", "canceled"], ["canceled"]])
def test_an_end_that_was_asked_for_is_in_the_outbox(
    redis: Redis, queue: Callable[..., Hand], status: Status, events: list[str] | None
) -> None:
    hand = queue(URL, **({"events": events} if events else {}))
    name, event = ENDS[status]
    hand.start()
    assert hand.write(hand.candidate(1))
    assert (waiting(redis), hand.record.delivery) == ([], None)
    assert hand.write(event, status=status)
    wanted = events is None or name in events
    assert waiting(redis) == ([hand.id] if wanted else [])
    assert hand.record.delivery == (Delivery() if wanted else None)


def test_an_end_is_in_the_outbox_once(redis: Redis, end: Callable[..., Hand]) -> None:
    hand = end(URL)
    redis.delete(OUTBOX_KEY)
    for status in FINAL_STATUSES:
        assert not hand.write(ENDS[status][1], status=status)
    assert waiting(redis) == []


def test_without_a_webhook_nothing_waits(redis: Redis, queue: Callable[..., Hand]) -> None:
    hand = queue(URL)
    redis.hset(
        job_key(hand.id),
        "request",
        hand.record.request.model_copy(update={"webhook": None}).model_dump_json(),
    )
    hand.start()
    hand.finish()
    assert waiting(redis) == []


def test_of_several_deliverers_one_has_each(redis_url: str, end: Callable[..., Hand]) -> None:
    ids = {end(URL).id for _ in range(12)}

    async def claim(outbox: Outbox) -> list[str]:
        found = await asyncio.gather(*(outbox.claim(5) for _ in range(8)))
        return [parcel.record.id for parcels in found for parcel in parcels]

    claimed = using(redis_url, claim)
    assert len(claimed) == len(ids)
    assert set(claimed) == ids


def test_what_its_deliverer_never_settled_is_due_again(
    redis: Redis, redis_url: str, end: Callable[..., Hand]
) -> None:
    hand = end(URL)

    async def claim_twice(outbox: Outbox) -> tuple[int, int, int]:
        first, second = await outbox.claim(5), await outbox.claim(5)
        sooner(redis, hand, 60)
        return len(first), len(second), len(await outbox.claim(5))

    assert using(redis_url, claim_twice, hold=60) == (1, 0, 1)


def test_a_deliverer_that_comes_too_late_changes_nothing(redis_url: str, end: Callable[..., Hand]) -> None:
    hand = end(URL)

    async def overtake(outbox: Outbox) -> list[bool]:
        [first] = await outbox.claim(5)
        await asyncio.sleep(0.1)
        [second] = await outbox.claim(5)
        return [
            await outbox.settle(first.claim, LATER, pause=0.0),
            await outbox.settle(second.claim, DONE),
            await outbox.settle(first.claim, LATER, pause=0.0),
        ]

    assert using(redis_url, overtake, hold=0.05) == [False, True, False]
    assert hand.record.delivery == DONE


def test_a_try_that_failed_is_due_again_after_its_pause(
    redis: Redis, redis_url: str, end: Callable[..., Hand]
) -> None:
    hand = end(URL)
    before = hand.record

    async def fail(outbox: Outbox) -> tuple[int, int, OutboxState]:
        [parcel] = await outbox.claim(5)
        assert await outbox.settle(parcel.claim, LATER, pause=60.0)
        soon = await outbox.claim(5)
        sooner(redis, hand, 60)
        return len(soon), len(await outbox.claim(5)), await state_of(outbox.redis)

    soon, later, state = using(redis_url, fail)
    assert (soon, later) == (0, 1)
    assert state == OutboxState(waiting=1, late_seconds=0.0, outcomes={"retried": 1})
    assert hand.record == before.model_copy(update={"delivery": LATER})
    assert waiting(redis) == [hand.id]


def test_how_late_the_first_is(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    first, second = end(URL), end(URL)
    redis.zincrby(OUTBOX_KEY, -5000, first.id)
    state = using(redis_url, lambda outbox: state_of(outbox.redis))
    assert (state.waiting, second.id in waiting(redis)) == (2, True)
    assert 5 <= state.late_seconds < 60


def test_a_deleted_job_is_never_delivered(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    deleted, expired = end(URL), end(URL)

    async def delete() -> None:
        async with connect(redis_url) as client:
            assert await Store(client).delete(deleted.record, FINAL_STATUSES) == (True, "deleted")

    asyncio.run(delete())
    assert waiting(redis) == [expired.id]
    redis.delete(job_key(expired.id))
    assert using(redis_url, lambda outbox: outbox.claim(5)) == []
    assert waiting(redis) == []


def test_what_is_settled_after_its_job_was_deleted_brings_nothing_back(
    redis: Redis, redis_url: str, end: Callable[..., Hand]
) -> None:
    hand = end(URL)

    async def settle(outbox: Outbox) -> None:
        [parcel] = await outbox.claim(5)
        redis.delete(job_key(hand.id))
        assert await outbox.settle(parcel.claim, LATER, pause=0.0)

    using(redis_url, settle)
    assert not redis.exists(job_key(hand.id))


def test_a_record_that_cannot_be_read_stops_no_other(
    redis: Redis, redis_url: str, end: Callable[..., Hand]
) -> None:
    broken, good = end(URL), end(URL)
    redis.hset(job_key(broken.id), "progress", "{}")
    parcels = using(redis_url, lambda outbox: outbox.claim(5))
    assert [parcel.record.id for parcel in parcels] == [good.id]
    assert set(waiting(redis)) == {broken.id, good.id}


def test_whose_key_is_revoked(redis: Redis, redis_url: str, end: Callable[..., Hand]) -> None:
    keys = [new_key(name, Limits())[0] for name in ("live", "revoked")]
    for key in keys:
        Keyring(redis).add(key)
        end(URL, owner=key.id)
    Keyring(redis).revoke(keys[1])
    end(URL, owner="key_unknown")
    end(URL)
    parcels = using(redis_url, lambda outbox: outbox.claim(5))
    found = {parcel.record.owner: parcel.revoked for parcel in parcels}
    assert found == {keys[0].id: False, keys[1].id: True, "key_unknown": True, None: False}
    assert len({parcel.secret for parcel in parcels}) == 4
