"""Remove what has been kept for long enough: ended generations, and folders that belong to none."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError

from app.jobs import forget
from app.problems import ProblemError
from app.services import Services
from contracts.jobs import ID_PATTERN, Record, id_at
from contracts.webhooks import DeliveryStatus

logger = logging.getLogger("rollover.app")

INTERVAL = 60.0
"""Seconds between two sweeps, however many servers share a Redis."""
ORPHANS_INTERVAL = 3600.0
"""Likewise for folders without a generation, for which the whole store is listed."""
WEBHOOK_GRACE = timedelta(days=1)
CHUNK = 200
TOLERATED = 20
"""Generations that the store may keep hold of in a sweep; more, and it counts as away."""


async def sweep_forever(services: Services) -> None:
    """Sweep now and every `INTERVAL` seconds; a store that is away is swept the next time."""
    while services.settings.keep:
        try:
            await sweep(services, services.settings.keep)
        except (RedisError, ProblemError) as error:
            logger.warning("The sweep ended early: %s", error)
        except Exception:
            logger.exception("The sweep met a defect")
        await asyncio.sleep(INTERVAL)


async def sweep(services: Services, keep: timedelta) -> None:
    """Remove what has expired, unless another server does so already.

    A server that dies in the midst of it leaves the rest for the next sweep: a generation is the last thing
    to go of what belongs to it, and two sweeps at once do no harm.
    """
    # By whichever clock is behind: one that was set forward by mistake must not cost anybody's work.
    present = min(time.time(), await services.store.seconds())
    ceiling = id_at(max(present - keep.total_seconds(), 0.0))
    if await services.store.claim_sweep("expired", INTERVAL):
        await sweep_expired(services, ceiling, datetime.fromtimestamp(present, UTC) - keep)
    if await services.store.claim_sweep("orphans", ORPHANS_INTERVAL):
        await sweep_orphans(services, ceiling)


async def sweep_expired(services: Services, ceiling: str, latest: datetime) -> None:
    """Remove the jobs that ended at `latest` or before; one that cannot be removed holds up no other."""
    refusals = 0
    async for record in expired(services, ceiling, latest):
        try:
            await forget(services, record)
        except ProblemError as error:
            logger.warning("%s has expired, and is left for now: %s", record.id, error)
            refusals += 1
            if refusals == TOLERATED:
                raise
        else:
            logger.info("%s has expired", record.id)


async def expired(services: Services, ceiling: str, latest: datetime) -> AsyncIterator[Record]:
    """Yield the jobs that ended at `latest` or before; their ids are below `ceiling`, as is that time."""
    after: str | None = None
    while ids := await services.store.oldest(ceiling, CHUNK, after):
        for record, _ in await services.store.all_placed(ids):
            if record.status.final and record.completed_at and record.completed_at <= due(record, latest):
                yield record
        after = ids[-1]


def due(record: Record, latest: datetime) -> datetime:
    """Return when a job must have ended to be removed now: a webhook that is still tried has a day more."""
    tried = record.delivery is not None and record.delivery.status is DeliveryStatus.PENDING
    return latest - WEBHOOK_GRACE if tried else latest


async def sweep_orphans(services: Services, ceiling: str) -> None:
    """Remove the folders of generations that are gone.

    An execution that was overtaken can write into one after it was removed. Only ids that would have expired
    are looked at: what is younger may belong to a Redis that was restored from a copy.
    """
    names = [name for name in await services.artifacts.names() if re.match(ID_PATTERN, name)]
    old = sorted(name for name in names if name < ceiling)
    for start in range(0, len(old), CHUNK):
        chunk = old[start : start + CHUNK]
        for name, status in zip(chunk, await services.store.statuses(chunk), strict=True):
            if status is None:
                await services.artifacts.remove(name)
                logger.info("The folder of %s, which is gone, is removed", name)
