"""Put a job into Redis and into RQ's queue, or refuse it, in one atomic step."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.serializers import JSONSerializer

from app.access import ANYBODY, Allowance, Caller, exhausted, limits_told
from app.problems import ProblemError
from app.submission import SETTLE_SCRIPT, SUBMIT_SCRIPT
from contracts.baseline import reserved_nfe
from contracts.events import EVENT_FIELD, Queued, encode
from contracts.jobs import Record
from contracts.keys import (
    JOB_FUNCTION,
    JOBS_KEY,
    charges_key,
    events_key,
    idempotency_key,
    job_key,
    jobs_key,
    queue_name,
    spent_key,
)
from contracts.logs import fact
from contracts.settings import Settings
from contracts.tracing import current
from contracts.turns import cost, line_keys, member

IDEMPOTENCY_TTL_SECONDS = 24 * 3600
FAILURE_TTL_SECONDS = 24 * 3600
DAY_SECONDS = 24 * 3600
BUSY_RETRY_SECONDS = "5"


def fingerprint(payload: object) -> str:
    """Return the hash of a posted body that does not depend on how its JSON was written."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Submitted:
    """An accepted submission: its id, whether it repeats an earlier one, what a new one leaves of limits."""

    id: str
    repeated: bool = False
    allowances: Sequence[Allowance] = ()


class LinedQueue(Queue):
    """RQ's queue without its last step: a job joins the line, and is in RQ's list when its turn comes."""

    def push_job_id(self, job_id: str, pipeline: Pipeline | None = None, at_front: bool = False) -> None:  # noqa: FBT001, FBT002 -- RQ's signature
        """Push nothing."""


class Enqueuer:
    """Submit jobs; RQ speaks to Redis synchronously, so call it from a thread."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        """Use a client that returns bytes, as RQ needs it."""
        self.redis = redis
        self.settings = settings
        self.queues = {
            model: LinedQueue(queue_name(model), connection=redis, serializer=JSONSerializer)
            for model in settings.models
        }

    def submit(self, record: Record, body: str, caller: Caller = ANYBODY) -> Submitted:
        """Store and queue a job, or find the one its idempotency key has made before.

        Args:
            record: the new job.
            body: fingerprint of what was posted.
            caller: whose limits apply; nothing is charged for what is refused or repeated.

        Raises:
            ProblemError: the queue is full, the key came with another body, or a limit of the caller is met.
        """
        model = record.request.model
        keys = [
            idempotency_key(record.idempotency_key or "", record.owner),
            spent_key(record.owner or ""),
            charges_key(record.owner or ""),
            *line_keys(self.queues[model].key, model),
        ]
        args = [*self.terms(record, body, caller), *flat(self.writes(record))]
        outcome, *facts = cast("list[Any]", self.redis.eval(SUBMIT_SCRIPT, len(keys), *keys, *args))
        return self.answered(outcome.decode(), facts, record, caller)

    def terms(self, record: Record, body: str, caller: Caller) -> list[str | float]:
        """Return the first arguments of `SUBMIT_SCRIPT`: on what terms the job is accepted."""
        limits = caller.key
        return [
            record.id,
            body if record.idempotency_key else "",
            IDEMPOTENCY_TTL_SECONDS,
            self.settings.max_queue,
            record.owner or "",
            reserved_nfe(record.request),
            (limits and limits.nfe_per_day) or "",
            (limits and limits.concurrent) or "",
            member(record),
            cost(reserved_nfe(record.request), record.request.priority),
        ]

    def writes(self, record: Record) -> Pipeline:
        """Return the commands that a new job consists of, not sent."""
        pipeline = self.redis.pipeline()
        self.queues[record.request.model].enqueue_call(
            JOB_FUNCTION,
            args=[record.id],
            job_id=record.id,
            timeout=self.settings.job_timeout_seconds,
            result_ttl=0,
            failure_ttl=FAILURE_TTL_SECONDS,
            retry=self.retry(),
            pipeline=pipeline,
        )
        first = {"events": 1, "status_sequence": 1, "request_id": fact("request"), "traceparent": current()}
        record = record.model_copy(update=first)
        pipeline.hset(job_key(record.id), mapping=cast("dict", record.to_hash()))
        event = f'{{"seq":1,{encode(Queued())[1:]}'
        pipeline.xadd(events_key(record.id), {EVENT_FIELD: event}, id="1-0")
        for key in dict.fromkeys([JOBS_KEY, jobs_key(record.owner)]):
            pipeline.zadd(key, {record.id: 0})
        return pipeline

    def answered(self, outcome: str, facts: Sequence[Any], record: Record, caller: Caller) -> Submitted:
        """Read what `SUBMIT_SCRIPT` returned."""
        if outcome == "stored":
            return Submitted(record.id, allowances=allowances_of(caller, *facts))
        if outcome == "repeated":
            return Submitted(facts[0].decode(), repeated=True)
        if outcome == "mismatch":
            raise ProblemError("idempotency_mismatch", "This Idempotency-Key was used with another body.")
        if outcome == "queue_full":
            raise ProblemError("queue_full", f"{self.settings.max_queue} generations wait already.")
        raise over_limit(outcome, allowances_of(caller, *facts))

    def settle(self, owner: str) -> None:
        """Give back what the ended jobs of a key were charged and did not spend."""
        self.redis.eval(SETTLE_SCRIPT, 2, spent_key(owner), charges_key(owner))

    def retry(self) -> Retry | None:
        """RQ's retries: one fewer than the executions allowed, at once."""
        retries = self.settings.max_attempts - 1
        return Retry(max=retries) if retries else None


def allowances_of(caller: Caller, nfe: int, reset: int, free: int) -> list[Allowance]:
    """Return what is left of a caller's limits: NFE today, of `reset` s more, and generations at once."""
    limits = caller.key
    found: list[Allowance] = []
    if limits and limits.nfe_per_day:
        found.append(Allowance("nfe", limits.nfe_per_day, nfe, DAY_SECONDS, reset))
    if limits and limits.concurrent:
        found.append(Allowance("generations", limits.concurrent, free))
    return found


def over_limit(outcome: str, allowances: Sequence[Allowance]) -> ProblemError:
    """Build the error for a submission that a limit of the caller forbids."""
    if outcome == "nfe_exhausted":
        nfe, *others = allowances
        return exhausted("nfe_exhausted", nfe, "NFE a day", *others)
    detail = f"This API key may have {allowances[-1].quota} generations waiting or running at once."
    headers = {"Retry-After": BUSY_RETRY_SECONDS, **limits_told(*allowances)}
    return ProblemError("too_many_generations", detail, headers=headers)


def flat(pipeline: Pipeline) -> list[Any]:
    """Return the commands of a pipeline as `SUBMIT_SCRIPT` takes them: each with its length before it."""
    commands = [command for command, _options in pipeline.command_stack]
    return [part for command in commands for part in (len(command), *command)]
