"""The loop that delivers: many at once, few of them to the same receiver or for the same API key."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from app.store import connect
from app.webhooks.outbox import Outbox, Parcel
from app.webhooks.payload import payload
from app.webhooks.schedule import Schedule, after
from app.webhooks.sending import Sender
from app.webhooks.signing import signed
from contracts.jobs import now
from contracts.settings import Settings
from contracts.webhooks import Delivery, DeliveryStatus, Webhook, webhook_id

AT_ONCE = 64
AT_ONCE_FOR_KEY = 16
AT_ONCE_FOR_RECEIVER = 4
POLL_SECONDS = 0.25
BUSY_SECONDS = 5.0
"""How long a webhook is put off, about, whose receiver or API key has as many under way as it may."""
LOOK_SECONDS = 0.01
"""Time from look to look, on average, at what is put off for one receiver or key: it is taken from others."""
AWAY_SECONDS = 1.0
MARGIN_SECONDS = 5.0
"""How much longer a webhook is held than a try may take."""
logger = logging.getLogger("rollover.webhooks")


@dataclass
class Deliverer:
    """Delivers what is due, until told to stop."""

    outbox: Outbox
    sender: Sender
    schedule: Schedule
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    _under_way: Counter[str] = field(default_factory=Counter[str])
    _looks: dict[str, float] = field(default_factory=dict[str, float])
    """By lane, until when it has had its share of looks (monotonic)."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping` is set, and then end what is under way."""
        while not stopping.is_set():
            try:
                taken = await self.take()
                pause = 0.0 if taken else POLL_SECONDS
            except RedisError as error:
                logger.warning("Redis is away: %s", error)
                pause = AWAY_SECONDS
            if pause:
                await wait(stopping, pause)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def take(self) -> int:
        """Begin with what is due, as far as there is room; return how many were looked at."""
        room = AT_ONCE - len(self._tasks)
        parcels = await self.outbox.claim(room) if room else []
        for parcel in parcels:
            try:
                await self.dispatch(parcel)
            except RedisError:
                raise
            except Exception:
                logger.exception("the delivery of %s met a defect before it began", parcel.record.id)
        return len(parcels)

    async def dispatch(self, parcel: Parcel) -> None:
        """Begin with a delivery, or put it off."""
        if full := self.full(parcel):
            await self.outbox.settle(parcel.claim, pause=self.pause(full))
        else:
            self.begin(parcel)

    def full(self, parcel: Parcel) -> list[str]:
        """Return in which lanes as many are under way as may be: to the same receiver, for the same key."""
        return [lane for lane, limit in lanes(parcel) if self._under_way[lane] >= limit]

    def pause(self, full: list[str]) -> float:
        """Return for how long to put off what goes by full lanes: the longer, the more waits there."""
        present = time.monotonic()
        for lane in full:
            self._looks[lane] = max(self._looks.get(lane, 0.0), present) + LOOK_SECONDS
        busy = BUSY_SECONDS + max(self._looks[lane] for lane in full) - present
        return busy * (0.5 + random.random())  # noqa: S311 (spreads looks)

    def begin(self, parcel: Parcel) -> None:
        """Deliver in a task of its own."""
        names = [lane for lane, _ in lanes(parcel)]
        self._under_way.update(names)
        task = asyncio.create_task(self.deliver(parcel))
        self._tasks.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            self._under_way.subtract(names)
            for name in names:
                if not self._under_way[name]:
                    del self._under_way[name]
                    if self._looks.get(name, 0.0) < time.monotonic():
                        self._looks.pop(name, None)

        task.add_done_callback(ended)

    async def deliver(self, parcel: Parcel) -> None:
        """Try once, and say how it went. Where that cannot be said, it is tried again when the claim ends."""
        try:
            delivery = refusal(parcel) if parcel.revoked else await self.tried(parcel)
            left = delivery.next_attempt_at
            pause = max((left - now()).total_seconds(), 0.0) if left else None
            await self.outbox.settle(parcel.claim, delivery, pause)
            logger.info("webhook", extra={"facts": facts(parcel, delivery)})
        except RedisError as error:
            logger.warning("the delivery of %s is not noted: %s", parcel.record.id, error)
        except Exception:
            logger.exception("the delivery of %s met a defect", parcel.record.id)

    async def tried(self, parcel: Parcel) -> Delivery:
        """Send the message; return how the delivery stands then."""
        body = payload(parcel.record)
        headers = {
            **signed(parcel.secret, webhook_id(parcel.record.id), body, now()),
            "Content-Type": "application/json",
            "User-Agent": "Rollover",
        }
        answer = await self.sender.post(webhook_of(parcel).url, headers, body.encode())
        before = parcel.record.delivery or Delivery()
        return after(before, answer, self.schedule, now(), random.random())  # noqa: S311 (spreads tries)


async def deliver(settings: Settings, redis_url: str, stopping: asyncio.Event) -> None:
    """Deliver as the settings say until `stopping` is set; tries under way come to their end."""
    async with connect(redis_url) as redis:
        deliverer = Deliverer(
            outbox=Outbox(redis, settings, settings.webhook_timeout_seconds + MARGIN_SECONDS),
            sender=Sender(settings.webhook_networks, settings.webhook_timeout_seconds),
            schedule=Schedule(settings.webhook_attempts, settings.webhook_retry_seconds),
        )
        await deliverer.run(stopping)


async def wait(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until `stopping` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


def refusal(parcel: Parcel) -> Delivery:
    """Return how a delivery ends that is not tried any more."""
    update = {
        "status": DeliveryStatus.FAILED,
        "next_attempt_at": None,
        "detail": "The API key that asked for it was revoked.",
    }
    return (parcel.record.delivery or Delivery()).model_copy(update=update)


def webhook_of(parcel: Parcel) -> Webhook:
    """Return what was asked for."""
    webhook = parcel.record.request.webhook
    assert webhook is not None  # noqa: S101 (only such jobs come to the outbox)
    return webhook


def receiver(parcel: Parcel) -> str:
    """Return the receiver's host and port: all that the log says of its URL, whose rest may be secret."""
    return urlsplit(webhook_of(parcel).url).netloc


def lanes(parcel: Parcel) -> Iterable[tuple[str, int]]:
    """Return what a delivery shares with others, and how many of those may be under way at once."""
    return (
        (f"key {parcel.record.owner}", AT_ONCE_FOR_KEY),
        (f"receiver {receiver(parcel)}", AT_ONCE_FOR_RECEIVER),
    )


def facts(parcel: Parcel, delivery: Delivery) -> dict[str, str | int | None]:
    """Return what is logged of a try."""
    return {
        "generation": parcel.record.id,
        "key": parcel.record.owner,
        "receiver": receiver(parcel),
        "attempt": delivery.attempts,
        "delivery": delivery.status.value,
        "status": delivery.status_code,
        "detail": delivery.detail,
    }
