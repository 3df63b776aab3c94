"""One execution's hold on a job: every write goes through the fenced script, a lost hold writes nothing."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar, cast
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry

from contracts.events import BaselineEvent, CandidateEvent, Event, LevelEvent, Resumed, Started, decode
from contracts.jobs import Checkpoint, Record, Status, hash_fields, now
from contracts.keys import events_key, job_key
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys

CANNOT_WRITE = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")
"""How Redis begins an answer that says it takes no writes for now, where redis-py has no exception for it."""
SOCKET_TIMEOUT = 5.0
LONGEST_PAUSE = 1.0
log = logging.getLogger(__name__)
T = TypeVar("T")


class HoldLostError(Exception):
    """The job ended, was deleted, or another execution has taken it over: stop, and write nothing more."""


class Reply(NamedTuple):
    """What a write found: whether it was applied, the job's status, number of the last event."""

    applied: bool
    status: str
    last_seq: int


class Told(NamedTuple):
    """What the stream has of the search already: an execution that does it again does not tell it again.

    A level is known by its chain and the candidate told before it: a strategy may leave one many times.
    """

    candidates: frozenset[int] = frozenset()
    levels: frozenset[tuple[int, int]] = frozenset()
    baseline: bool = False
    nfe_redone: int = 0
    baseline_nfe_redone: int = 0


def connect(url: str) -> redis.Redis:
    """A connection for records. It never repeats a command itself: only some may be done twice."""
    return redis.Redis.from_url(
        url, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=SOCKET_TIMEOUT
    )


def away(error: Exception) -> bool:
    """Whether Redis is gone, or takes no writes, for now: the thing to do is wait."""
    known = (
        redis.ConnectionError,
        redis.TimeoutError,
        OutOfMemoryError,
        redis.ReadOnlyError,
    )
    if isinstance(error, known):
        return True
    return isinstance(error, redis.ResponseError) and str(error).startswith(CANNOT_WRITE)


def pauses() -> Iterator[float]:
    """Seconds to wait between attempts while Redis is away, without end."""
    pause = 0.05
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


def patiently(ask: Callable[[], T], stopping: threading.Event | None = None) -> T:
    """Ask Redis something that may be asked again, until it answers.

    Raises:
        redis.RedisError: it refused; or it is away, and `stopping` is set.
    """
    told = stopping or threading.Event()
    for pause in pauses():
        try:
            return ask()
        except redis.RedisError as error:
            if told.is_set() or not away(error):
                raise
            log.warning("Redis is away: %s", error)
            told.wait(pause)
    raise AssertionError


def load(connection: redis.Redis, job_id: str) -> Record | None:
    """The record of a job; None where it was deleted."""
    fields = cast("dict[str, str]", connection.hgetall(job_key(job_id)))
    return Record.from_hash(fields) if fields else None


@dataclass
class Hold:
    """A job this execution may write to, until another takes over.

    Args:
        connection: from `connect`.
        record: the job as it was when this execution began, and no other could write any more.
        attempt: number of this execution, its fence.
        last_seq: number of the last event published.
        started_at: when the first execution began.
        told: what earlier executions have published of the search.
        nfe_redone: evaluations of earlier attempts that are made again, the baseline's aside.
        baseline_nfe_redone: those of the baseline.
        writer: tells this execution from any other, one with the same number too.
        writes: how many writes it has begun.
    """

    connection: redis.Redis
    record: Record
    attempt: int
    last_seq: int
    started_at: datetime
    told: Told = field(default_factory=Told)
    nfe_redone: int = 0
    baseline_nfe_redone: int = 0
    writer: str = field(default_factory=lambda: uuid4().hex)
    writes: int = 0

    @classmethod
    def take(cls, connection: redis.Redis, record: Record, worker: str) -> Self:
        """Begin an execution. Raises `HoldLostError` where the job has ended or another one was faster."""
        hold = cls(connection, record, record.attempts, record.events, record.started_at or now())
        fields = hash_fields(attempts=record.attempts + 1, started_at=hold.started_at, lost=record.losses)
        started = Started(attempt=record.attempts + 1, worker=worker)
        hold.write([started], status=Status.RUNNING, fields=fields, allowed=(Status.QUEUED, Status.RUNNING))
        if record.attempts == 0:
            return replace(hold, attempt=1)
        # Only now can no other execution add to it.
        fresh = patiently(lambda: load(connection, record.id))
        if fresh is None or fresh.attempts != record.attempts + 1:
            raise HoldLostError(f"job {record.id} is not ours any more")
        told = told_of(hold.published())
        return replace(
            hold,
            record=fresh,
            attempt=fresh.attempts,
            told=told,
            nfe_redone=told.nfe_redone,
            baseline_nfe_redone=told.baseline_nfe_redone,
        )

    def resume(self, from_nfe: int, from_baseline: int = 0) -> None:
        """Say that an earlier execution's work goes on after so many evaluations; the rest is made again.

        Args:
            from_nfe: evaluations of the search that count.
            from_baseline: of its baseline.
        """
        progress = self.record.progress
        redone = max(progress.nfe_spent - from_nfe, 0)
        others = max(progress.baseline_nfe_spent - from_baseline, 0)
        self.nfe_redone += redone
        self.baseline_nfe_redone += others
        self.write([Resumed(from_nfe=from_nfe, nfe_redone=redone, baseline_nfe_redone=others)])

    def published(self) -> list[str]:
        """Every event of the job so far, as the stream has it."""
        key = events_key(self.record.id)
        entries = patiently(lambda: cast("list[tuple[str, dict[str, str]]]", self.connection.xrange(key)))
        return [entry["event"] for _, entry in entries]

    def write(
        self,
        events: Sequence[Event] = (),
        *,
        status: Status | None = None,
        fields: dict[str, str] | None = None,
        allowed: Sequence[Status] = (Status.RUNNING,),
    ) -> None:
        """Publish events and change the record in one atomic step, once; while Redis is away, wait for it.

        Raises:
            HoldLostError: nothing was written.
        """
        self.writes += 1
        arguments = write_args(
            allowed=allowed,
            status=status,
            fence=self.attempt,
            writer=self.writer,
            number=self.writes,
            fields=fields,
            events=events,
        )
        reply = patiently(lambda: self._send(arguments))
        if not reply.applied:
            raise HoldLostError(f"job {self.record.id} is {reply.status}, and not ours to write")
        self.last_seq = reply.last_seq

    def names(self, checkpoint: Checkpoint) -> bool:
        """Whether the record has this as its newest state, whoever may write to it by now."""
        key, [(name, text)] = job_key(self.record.id), hash_fields(checkpoint=checkpoint).items()
        return patiently(lambda: self.connection.hget(key, name)) == text

    def _send(self, arguments: list[str]) -> Reply:
        keys = write_keys(self.record.id)
        reply = cast("Any", self.connection.eval(WRITE_SCRIPT, len(keys), *keys, *arguments))
        applied, status, last_seq = reply
        return Reply(bool(applied), status, last_seq)


def told_of(texts: Sequence[str]) -> Told:
    """What a stream tells of a search."""
    events = [decode(text) for text in texts]
    levels, nfe = set[tuple[int, int]](), 0
    for event in events:
        if isinstance(event, CandidateEvent):
            nfe = event.nfe
        elif isinstance(event, LevelEvent):
            levels.add((event.chain, nfe))
    resumed = [event for event in events if isinstance(event, Resumed)]
    return Told(
        candidates=frozenset(event.nfe for event in events if isinstance(event, CandidateEvent)),
        levels=frozenset(levels),
        baseline=any(isinstance(event, BaselineEvent) for event in events),
        nfe_redone=sum(event.nfe_redone for event in resumed),
        baseline_nfe_redone=sum(event.baseline_nfe_redone for event in resumed),
    )
