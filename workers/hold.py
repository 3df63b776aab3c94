"""One execution's hold on a job: every write goes through the fenced script, a lost hold writes nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts.events import Event, Resumed, Started, decode
from contracts.jobs import Progress, Record, Status, hash_fields, now
from contracts.keys import events_key, job_key
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys

AWAY = (redis.ConnectionError, redis.TimeoutError)
PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to write while Redis is away; after the last one the execution gives up."""


class HoldLostError(Exception):
    """The job ended, was deleted, or another execution has taken it over: stop, and write nothing more."""


class Reply(NamedTuple):
    """What a write found: whether it was applied, the job's status, whether its cancel was asked for."""

    applied: bool
    status: str
    canceled: bool


class Mark(NamedTuple):
    """What the record shows once a write has arrived."""

    events: str
    attempts: str


def connect(url: str) -> redis.Redis:
    """A connection for records. It never repeats a command itself: a repeated write would repeat events."""
    return redis.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))


def load(connection: redis.Redis, job_id: str) -> Record | None:
    """The record of a job; None where it was deleted."""
    fields = cast("dict[str, str]", connection.hgetall(job_key(job_id)))
    return Record.from_hash(fields) if fields else None


@dataclass
class Hold:
    """A job this execution may write to, until another takes over.

    Args:
        connection: from `connect`.
        record: the job as it was when this execution began.
        attempt: number of this execution, its fence.
        last_seq: number of the last event published.
        started_at: when the first execution began.
        nfe_redone: evaluations of earlier attempts that are made again.
    """

    connection: redis.Redis
    record: Record
    attempt: int
    last_seq: int
    started_at: datetime
    nfe_redone: int = 0

    @classmethod
    def take(cls, connection: redis.Redis, record: Record, worker: str) -> Self:
        """Begin an execution. Raises `HoldLostError` where the job has ended or another one was faster."""
        hold = cls(connection, record, record.attempts, record.events, record.started_at or now())
        events: list[Event] = [Started(attempt=record.attempts + 1, worker=worker)]
        if record.attempts:
            events.append(Resumed(from_nfe=0, nfe_redone=record.progress.nfe_spent))
            hold.nfe_redone = redone_before(connection, record.id) + record.progress.nfe_spent
        fields = hash_fields(
            attempts=record.attempts + 1,
            started_at=hold.started_at,
            progress=Progress(nfe_budget=record.request.budget.nfe, levels=record.progress.levels),
        )
        hold.write(events, status=Status.RUNNING, fields=fields, allowed=(Status.QUEUED, Status.RUNNING))
        hold.attempt += 1
        return hold

    def write(
        self,
        events: Sequence[Event] = (),
        *,
        status: Status | None = None,
        fields: dict[str, str] | None = None,
        allowed: Sequence[Status] = (Status.RUNNING,),
    ) -> bool:
        """Publish events and change the record in one atomic step.

        Returns:
            Whether someone has asked for the job to be canceled.

        Raises:
            HoldLostError: nothing was written.
            redis.ConnectionError: Redis stayed away.
        """
        fields = fields or {}
        arguments = write_args(
            allowed=allowed, status=status, fence=self.attempt, fields=fields, events=events
        )
        mark = Mark(str(self.last_seq + len(events)), fields.get("attempts", str(self.attempt)))
        reply = self._persistently(arguments, mark if events else None)
        if not reply.applied:
            raise HoldLostError(f"job {self.record.id} is {reply.status}, and not ours to write")
        self.last_seq += len(events)
        return reply.canceled

    def _persistently(self, arguments: list[str], mark: Mark | None) -> Reply:
        """Write; while Redis is away, try again."""
        for pause in PAUSES:
            try:
                return self._send(arguments)
            except AWAY:
                time.sleep(pause)
            try:
                if mark and (reply := self._arrived(mark)):
                    return reply
            except AWAY:
                continue
        return self._send(arguments)

    def _send(self, arguments: list[str]) -> Reply:
        pipeline = self.connection.pipeline(transaction=False)
        pipeline.eval(WRITE_SCRIPT, 2, *write_keys(self.record.id), *arguments)
        pipeline.hget(job_key(self.record.id), "cancel_requested")
        (applied, status, _), flag = cast("tuple[Any, Any]", pipeline.execute())
        return Reply(bool(applied), status, flag == "1")

    def _arrived(self, mark: Mark) -> Reply | None:
        """Look whether a write whose reply was lost had been done: repeating it would repeat its events."""
        names = [*Mark._fields, "status", "cancel_requested"]
        events, attempts, status, flag = cast(
            "list[str | None]", self.connection.hmget(job_key(self.record.id), names)
        )
        return (
            Reply(applied=True, status=status or "deleted", canceled=flag == "1")
            if (events, attempts) == mark
            else None
        )


def redone_before(connection: redis.Redis, job_id: str) -> int:
    """What earlier `resumed` events of a job add up to."""
    entries = cast("list[tuple[str, dict[str, str]]]", connection.xrange(events_key(job_id)))
    events = (decode(entry["event"]) for _, entry in entries)
    return sum(event.nfe_redone for event in events if isinstance(event, Resumed))
