"""Put a job into Redis and into RQ's queue in one transaction."""

import hashlib
import json
from typing import cast

from redis import Redis, WatchError
from redis.client import Pipeline
from rq import Queue, Retry
from rq.serializers import JSONSerializer

from app.problems import ProblemError
from contracts.events import Queued
from contracts.jobs import Record, Status
from contracts.keys import JOB_FUNCTION, JOBS_KEY, idempotency_key, job_key, queue_name
from contracts.settings import Settings
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys

IDEMPOTENCY_TTL_SECONDS = 24 * 3600
FAILURE_TTL_SECONDS = 24 * 3600


def fingerprint(payload: object) -> str:
    """Return the hash of a posted body that does not depend on how its JSON was written."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Enqueuer:
    """Submit jobs; RQ speaks to Redis synchronously, so call it from a thread."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        """Use a client that returns bytes, as RQ needs it."""
        self.redis = redis
        self.settings = settings
        self.queues = {
            model: Queue(queue_name(model), connection=redis, serializer=JSONSerializer)
            for model in settings.models
        }

    def submit(self, record: Record, body: str) -> str:
        """Store and queue a job; return its id, or that of the job its idempotency key has made before.

        Args:
            record: the new job.
            body: fingerprint of what was posted.

        Raises:
            ProblemError: the queue is full, or the key came with another body.
        """
        while True:
            try:
                return self.earlier(record, body) or self.store(record, body)
            except WatchError:
                # The same key was used by another request in this moment: read what that one stored.
                continue

    def earlier(self, record: Record, body: str) -> str | None:
        """Return the job that this submission repeats, if there is one."""
        if record.idempotency_key is None:
            return None
        text = cast("bytes | None", self.redis.get(idempotency_key(record.idempotency_key)))
        if text is None:
            return None
        entry = json.loads(text)
        if entry["body"] != body:
            detail = "This Idempotency-Key was used with another body."
            raise ProblemError("idempotency_mismatch", detail)
        return entry["id"]

    def store(self, record: Record, body: str) -> str:
        """Write everything a new job consists of in one MULTI."""
        queue = self.queues[record.request.model]
        if queue.count >= self.settings.max_queue:
            raise ProblemError("queue_full", f"{self.settings.max_queue} generations wait already.")
        with self.redis.pipeline(transaction=True) as pipeline:
            self.begin(pipeline, record, body)
            keys = write_keys(record.id)
            pipeline.hset(job_key(record.id), mapping=cast("dict", record.to_hash()))
            args = write_args(allowed=[Status.QUEUED], events=[Queued()])
            pipeline.eval(WRITE_SCRIPT, len(keys), *keys, *args)
            pipeline.zadd(JOBS_KEY, {record.id: 0})
            queue.enqueue_call(
                JOB_FUNCTION,
                args=[record.id],
                job_id=record.id,
                timeout=self.settings.job_timeout_seconds,
                result_ttl=0,
                failure_ttl=FAILURE_TTL_SECONDS,
                retry=self.retry(),
                pipeline=pipeline,
            )
            pipeline.execute()
        return record.id

    def begin(self, pipeline: Pipeline, record: Record, body: str) -> None:
        """Open the transaction, and claim the job's idempotency key in it if it has one."""
        if record.idempotency_key is None:
            pipeline.multi()
            return
        key = idempotency_key(record.idempotency_key)
        pipeline.watch(key)
        if pipeline.exists(key):
            raise WatchError
        pipeline.multi()
        entry = json.dumps({"id": record.id, "body": body})
        pipeline.set(key, entry, ex=IDEMPOTENCY_TTL_SECONDS)

    def retry(self) -> Retry | None:
        """RQ's retries: one fewer than the executions allowed, at once."""
        retries = self.settings.max_attempts - 1
        return Retry(max=retries) if retries else None
