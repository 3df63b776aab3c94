"""The webhooks that are due, as Redis holds them: taken for a while by one deliverer, and settled by it.

`contracts.transitions.WRITE_SCRIPT` puts a job's webhook here together with the job's end.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from app.keyring import ApiKey
from app.webhooks.signing import root_secret, secret_of
from contracts.jobs import Record
from contracts.keys import KEYRING_KEY, OUTBOX_KEY, OUTCOMES_KEY, job_key
from contracts.settings import Settings
from contracts.webhooks import Delivery, DeliveryStatus

logger = logging.getLogger("rollover.webhooks")
NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

CLAIM_SCRIPT = f"""
-- KEYS: outbox; ARGV: how many at most, ms to hold each
{NOW}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local claims = {{}}
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], id)
  table.insert(claims, id)
  table.insert(claims, now + ARGV[2])
end
return claims
"""
"""Returns the id of each that was due, and until when it is held, by Redis's clock: no other one counts."""

SETTLE_SCRIPT = f"""
-- KEYS: outbox, outcomes, job hash
-- ARGV: id, until when it was held, ms to the next try (or '': no more), delivery as JSON (or ''),
--       outcome (or '')
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not held or tonumber(held) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  {NOW}
  redis.call('ZADD', KEYS[1], now + math.floor(ARGV[3]), ARGV[1])
end
if ARGV[4] ~= '' and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[3], 'delivery', ARGV[4])
end
if ARGV[5] ~= '' then redis.call('HINCRBY', KEYS[2], ARGV[5], 1) end
return 1
"""
"""Returns whether it was still held; if not, another deliverer has it, and says itself how it went."""

STATE_SCRIPT = f"""
-- KEYS: outbox, outcomes
{NOW}
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local late = first[2] and math.max(now - tonumber(first[2]), 0) or 0
return {{redis.call('ZCARD', KEYS[1]), late, redis.call('HGETALL', KEYS[2])}}
"""
OUTCOMES = {
    DeliveryStatus.DELIVERED: "delivered",
    DeliveryStatus.PENDING: "retried",
    DeliveryStatus.FAILED: "failed",
}


@dataclass(frozen=True)
class Claim:
    """A webhook that this deliverer holds until a time (Unix ms, by Redis's clock)."""

    id: str
    until: int


@dataclass(frozen=True)
class Parcel:
    """A claimed webhook with what it takes to deliver it; `revoked`: the API key that asked for it is."""

    claim: Claim
    record: Record
    secret: str
    revoked: bool


@dataclass(frozen=True)
class OutboxState:
    """How many webhooks wait, for how many seconds the first is overdue, and how tries have ended so far."""

    waiting: int
    late_seconds: float
    outcomes: dict[str, int]


class Outbox:
    """Takes due webhooks and settles them.

    Args:
        redis: an asyncio client that returns text.
        settings: the server's, for its secret.
        hold_seconds: how long a claim lasts; longer than a try.
    """

    def __init__(self, redis: Any, settings: Settings, hold_seconds: float) -> None:  # noqa: ANN401 (as above)
        self.redis = redis
        self.settings = settings
        self.hold_ms = int(hold_seconds * 1000)

    async def claim(self, count: int) -> list[Parcel]:
        """Take at most so many webhooks that are due; those of deleted jobs are forgotten."""
        answer = await self.redis.eval(CLAIM_SCRIPT, 1, OUTBOX_KEY, count, self.hold_ms)
        parcels: list[Parcel] = []
        for pair in zip(answer[::2], answer[1::2], strict=True):
            claim = Claim(*pair)
            try:
                parcel = await self.parcel(claim)
            except RedisError:
                raise
            except Exception:
                logger.exception("%s cannot be read; it is looked at again when its claim ends", claim.id)
                continue
            if parcel:
                parcels.append(parcel)
            else:
                await self.settle(claim)
        return parcels

    async def parcel(self, claim: Claim) -> Parcel | None:
        """Return what a claimed webhook consists of; None where its job is gone."""
        fields = await self.redis.hgetall(job_key(claim.id))
        if not fields:
            return None
        record = Record.from_hash(fields, extra="ignore")
        return Parcel(
            claim=claim,
            record=record,
            secret=secret_of(await root_secret(self.redis, self.settings), record.owner),
            revoked=await self.revoked(record.owner),
        )

    async def revoked(self, owner: str | None) -> bool:
        """Whether an API key is worth nothing any more."""
        if owner is None:
            return False
        text = await self.redis.hget(KEYRING_KEY, owner)
        return text is None or ApiKey.model_validate_json(text).revoked_at is not None

    async def settle(
        self, claim: Claim, delivery: Delivery | None = None, pause: float | None = None
    ) -> bool:
        """Say how a claimed webhook stands and in how many seconds it is due again; None: never.

        Returns whether it was still held.
        """
        keys = [OUTBOX_KEY, OUTCOMES_KEY, job_key(claim.id)]
        args = [
            claim.id,
            claim.until,
            "" if pause is None else int(pause * 1000),
            delivery.model_dump_json() if delivery else "",
            OUTCOMES[delivery.status] if delivery else "",
        ]
        return bool(await self.redis.eval(SETTLE_SCRIPT, len(keys), *keys, *args))


async def state_of(redis: Any) -> OutboxState:  # noqa: ANN401 (its types cover both clients)
    """Return how the outbox stands."""
    waiting, late, flat = await redis.eval(STATE_SCRIPT, 2, OUTBOX_KEY, OUTCOMES_KEY)
    counts: Sequence[str] = flat
    outcomes = {name: int(count) for name, count in zip(counts[::2], counts[1::2], strict=True)}
    return OutboxState(waiting, late / 1000, outcomes)
