"""Jobs, events and workers as Redis holds them."""

import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from pydantic import ValidationError
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from rq import Queue
from rq.job import Job
from rq.registry import StartedJobRegistry

from app.gathered import Gathered, Shared
from contracts.baseline import reserved_nfe
from contracts.beats import WorkerBeat
from contracts.events import EVENT_FIELD, FINAL_EVENTS, Event
from contracts.jobs import Record, Status
from contracts.keys import (
    JOBS_KEY,
    WORKERS_KEY,
    events_key,
    idempotency_key,
    job_key,
    jobs_key,
    pace_key,
    queue_name,
    sweep_key,
    trouble_key,
    worker_key,
)
from contracts.quotes import Pace
from contracts.requests import ResolvedRequest
from contracts.transitions import DELETE_SCRIPT, WRITE_SCRIPT, write_args, write_keys
from contracts.turns import AHEAD_SCRIPT, LEAVE_SCRIPT, READ_SCRIPT, cost, line_keys, member, member_of

logger = logging.getLogger("rollover.store")
MAX_CONNECTIONS = 8_000
"""One waits for each search that is followed; Redis takes 10,000 by default, and workers need some."""
BLOCK_MS = 10_000
READ_COUNT = 500
TYPE_MARK = '"type":"'


@dataclass(frozen=True)
class Entry:
    """One published event: its number, its type, and its JSON as stored."""

    seq: int
    type: str
    text: str

    @property
    def final(self) -> bool:
        """Whether no event follows."""
        return self.type in FINAL_EVENTS


class Placed(NamedTuple):
    """A job, and how many wait ahead of it; None where it does not wait."""

    record: Record
    ahead: int | None


def connect(url: str) -> Redis:
    """Return a client that connects when it is first used and tries again briefly."""
    pool = ConnectionPool.from_url(
        url,
        decode_responses=True,
        max_connections=MAX_CONNECTIONS,
        socket_connect_timeout=2,
        socket_timeout=2 + BLOCK_MS / 1000,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), retries=2),
    )
    return Redis.from_pool(pool)


class Store:
    """Read jobs and change them, each change in one atomic step."""

    def __init__(self, redis: Redis) -> None:
        """Use a client made by `connect`."""
        # redis-py's types describe its sync and async forms at once and fit neither.
        self.redis: Any = redis
        self.reads = Gathered(self.read)
        self.streams = Shared()

    async def placed(self, generation: str) -> Placed | None:
        """Return a job with its place in the queue, or None where there is none."""
        fields, ahead = await self.reads.get(generation)
        return Placed(Record.from_hash(fields, extra="ignore"), ahead) if fields else None

    async def all_placed(self, generations: Sequence[str]) -> list[Placed]:
        """Return those of the jobs that can be read, in the order given; of the others the log tells."""
        found: list[Placed] = []
        for fields, ahead in await self.read(generations):
            try:
                found += [Placed(Record.from_hash(fields, extra="ignore"), ahead)] if fields else []
            except ValidationError:
                logger.exception("the record of %s cannot be read", fields.get("id"))
        return found

    async def read(self, generations: Sequence[str]) -> list[tuple[dict[str, str], int | None]]:
        """Return the fields of jobs, and how many wait ahead of each, in one round trip."""
        keys = [job_key(generation) for generation in generations]
        waiting, line, _ = keys_of("")
        found = await self.redis.eval(READ_SCRIPT, len(keys), *keys, waiting, line)
        return [
            (dict(zip(flat[::2], flat[1::2], strict=True)), ahead if ahead >= 0 else None)
            for flat, ahead in found
        ]

    async def earlier(self, key: str, owner: str | None, body: str) -> str | None:
        """Return the job that an idempotency key has made with the same body, where there is one."""
        text = await self.redis.get(idempotency_key(key, owner))
        found = json.loads(text) if text else {}
        return found["id"] if found.get("body") == body else None

    async def statuses(self, generations: Sequence[str]) -> list[str | None]:
        """Return the status of each job, None where there is none."""
        pipeline = self.redis.pipeline(transaction=False)
        for generation in generations:
            pipeline.hget(job_key(generation), "status")
        return await pipeline.execute()

    async def newest(self, owner: str | None, count: int, before: str | None = None) -> list[str]:
        """Return ids of an owner's jobs from the newest down, from the one just older than `before`."""
        ceiling = f"({before}" if before else "+"
        return await self.redis.zrevrangebylex(jobs_key(owner), ceiling, "-", start=0, num=count)

    async def oldest(self, ceiling: str, count: int, after: str | None = None) -> list[str]:
        """Return ids of anybody's jobs from the oldest up, those between `after` and `ceiling`."""
        floor = f"({after}" if after else "-"
        return await self.redis.zrangebylex(JOBS_KEY, floor, f"({ceiling}", start=0, num=count)

    async def seconds(self) -> float:
        """Return the time, in seconds since 1970, by Redis' clock."""
        seconds, microseconds = await self.redis.time()
        return seconds + microseconds / 1e6

    async def claim_sweep(self, kind: str, seconds: float) -> bool:
        """Whether nobody has begun this kind of sweep in the last so many seconds; if so, we have now."""
        return bool(await self.redis.set(sweep_key(kind), "1", nx=True, px=int(seconds * 1000)))

    async def ahead(self, owner: str | None, request: ResolvedRequest) -> int:
        """Return how many generations would wait ahead of a submission."""
        keys = keys_of(request.model)
        args = [member_of("", owner, request.priority), cost(reserved_nfe(request), request.priority)]
        return await self.redis.eval(AHEAD_SCRIPT, len(keys), *keys, *args)

    async def running(self, model: str) -> list[Record]:
        """Return the jobs of a model that workers have, and that run."""
        started: list[str] = await self.redis.zrange(
            StartedJobRegistry.key_template.format(queue_name(model)), 0, -1
        )
        ids = list(dict.fromkeys(name.partition(":")[0] for name in started))
        placed = await self.all_placed(ids) if ids else []
        return [record for record, _ in placed if record.status is Status.RUNNING]

    async def pace(self, model: str, size: tuple[int, int] | None = None) -> Pace:
        """Return how fast a model's jobs went lately, or those of a size in pixels."""
        return Pace.from_hash(await self.redis.hgetall(pace_key(model, size)))

    async def write(
        self,
        generation: str,
        *,
        allowed: Iterable[Status],
        status: Status | None = None,
        fence: int | None = None,
        fields: Mapping[str, str] | None = None,
        events: Iterable[Event] = (),
    ) -> tuple[bool, str]:
        """Change a job if its status allows, and its number of executions where `fence` is given.

        Returns whether it did, and the status afterwards.
        """
        keys = write_keys(generation)
        args = write_args(allowed=allowed, status=status, fence=fence, fields=fields, events=events)
        applied, after, _last = await self.redis.eval(WRITE_SCRIPT, len(keys), *keys, *args)
        return bool(applied), after

    async def withdraw(self, record: Record) -> None:
        """Take a job out of the line, unless a worker has it already (it will find the job canceled)."""
        keys = [*keys_of(record.request.model), Job.key_for(record.id)]
        await self.redis.eval(LEAVE_SCRIPT, len(keys), *keys, member(record))

    async def delete(self, record: Record, allowed: Iterable[Status]) -> tuple[bool, str]:
        """Forget a job if its status allows; return whether it did, and the status afterwards."""
        keys = [*write_keys(record.id), JOBS_KEY, Job.key_for(record.id)]
        if record.idempotency_key:
            keys.append(idempotency_key(record.idempotency_key, record.owner))
        args = [record.id, ",".join(allowed)]
        applied, after = await self.redis.eval(DELETE_SCRIPT, len(keys), *keys, *args)
        return bool(applied), after

    async def events(self, generation: str) -> list[Entry]:
        """Return all events published so far."""
        entries = await self.redis.xrange(events_key(generation))
        return [entry_of(entry_id, fields) for entry_id, fields in entries]

    async def follow(self, generation: str, after: int) -> AsyncIterator[list[Entry]]:
        """Yield events from `after` on as they are published, and an empty list in each quiet interval.

        Ends after the final event, or when the job is deleted.
        """
        while True:
            batch = await self.streams.get((generation, after), partial(self.next_events, generation, after))
            yield batch
            if batch:
                after = batch[-1].seq
            ended = batch[-1].final if batch else await self.nothing_after(generation, after)
            if ended:
                return

    async def next_events(self, generation: str, after: int) -> list[Entry]:
        """Return the events from `after` on, as soon as there are any; none where that takes too long."""
        key = events_key(generation)
        answer = await self.redis.xread({key: f"{after}-0"}, count=READ_COUNT, block=BLOCK_MS)
        return [entry_of(entry_id, fields) for entry_id, fields in answer[0][1]] if answer else []

    async def nothing_after(self, generation: str, after: int) -> bool:
        """Whether no event with a higher number than `after` will ever come."""
        fields = await self.redis.hmget(job_key(generation), "status", "events")
        status, last = fields
        return status is None or (Status(status).final and int(last) <= after)

    async def troubles(self, models: Sequence[str]) -> list[str | None]:
        """Return why engines of each model could not be started lately; None where they could."""
        return await self.redis.mget([trouble_key(model) for model in models])

    async def workers(self) -> list[WorkerBeat]:
        """Return the workers that live."""
        names = sorted(await self.redis.smembers(WORKERS_KEY))
        beats = await self.redis.mget([worker_key(name) for name in names]) if names else []
        return [WorkerBeat.model_validate_json(beat) for beat in beats if beat]


def keys_of(model: str) -> list[str]:
    """Keys of the line of a model, RQ's list first."""
    return line_keys(Queue.redis_queue_namespace_prefix + queue_name(model), model)


def entry_of(entry_id: str, fields: Mapping[str, str]) -> Entry:
    """Read a stream entry; its type is found without parsing the whole of it."""
    text = fields[EVENT_FIELD]
    start = text.index(TYPE_MARK) + len(TYPE_MARK)
    return Entry(seq=int(entry_id.partition("-")[0]), type=text[start : text.index('"', start)], text=text)
