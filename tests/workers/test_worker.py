"""The RQ side: what a worker takes, refuses and survives."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import DefaultSerializer, JSONSerializer

from contracts.beats import WorkerBeat, WorkerState
from contracts.jobs import Status
from contracts.keys import JOB_FUNCTION, WORKERS_KEY, queue_name, worker_key
from tests.workers.conftest import Desk
from workers.beat import Beat
from workers.worker import GenerationWorker


@pytest.fixture
def raw(redis_url: str) -> Iterator[Redis]:
    """A client of `redis_url` that returns bytes, as RQ needs it."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def worker(desk: Desk, raw: Redis) -> Iterator[GenerationWorker]:
    """A worker in this process, whose signal handlers are taken away again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with Beat(desk.runner.connection, "worker-1", "shapes") as beat:
        yield GenerationWorker(raw, desk.runner, beat)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def queue(raw: Redis) -> Queue:
    return Queue(queue_name("shapes"), connection=raw, serializer=JSONSerializer)


def status_of(queue: Queue, job_id: str) -> JobStatus | None:
    return Job.fetch(job_id, connection=queue.connection, serializer=JSONSerializer).get_status()


def test_jobs_are_run_in_order_and_forgotten_by_rq(
    desk: Desk, worker: GenerationWorker, queue: Queue
) -> None:
    jobs = [desk.submit(seed=seed) for seed in range(3)]
    worker.work(burst=True)
    records = [desk.record(job) for job in jobs]
    assert [record.status for record in records] == [Status.SUCCEEDED] * 3
    ends = [record.completed_at for record in records]
    assert ends == sorted(ends, key=str)
    assert not any(Job.exists(job, connection=queue.connection) for job in jobs)
    assert worker.queue_names() == ["rollover:shapes"]


def test_any_other_function_is_refused_and_never_run(
    desk: Desk, worker: GenerationWorker, queue: Queue, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    job = queue.enqueue_call("os.mkdir", args=[str(evil)], job_id="evil")
    after = desk.submit()
    worker.work(burst=True)
    assert status_of(queue, job.id) is JobStatus.FAILED
    result = job.latest_result()
    assert result
    assert f"runs {JOB_FUNCTION} and nothing else; job evil names os.mkdir" in (result.exc_string or "")
    assert not evil.exists()
    assert desk.record(after).status is Status.SUCCEEDED


def test_a_refused_job_is_not_tried_again(desk: Desk, worker: GenerationWorker, queue: Queue) -> None:
    from rq import Retry  # noqa: PLC0415

    queue.enqueue_call("os.getcwd", job_id="evil", retry=Retry(max=3))
    worker.work(burst=True)
    assert status_of(queue, "evil") is JobStatus.FAILED
    assert desk.redis.hget("rq:job:evil", "retries_left") in {"0", "3"}
    assert queue.count == 0


@pytest.mark.parametrize("name", ["success_callback_name", "failure_callback_name"])
def test_callbacks_that_redis_names_are_not_run(
    desk: Desk, worker: GenerationWorker, raw: Redis, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    job = desk.submit()
    raw.hset(f"rq:job:{job}", name, "builtins.print")
    if name.startswith("failure"):
        raw.hset(f"rq:job:{job}", "data", JSONSerializer.dumps(["os.getcwd", None, [], {}]))
    worker.work(burst=True)
    assert job not in capfd.readouterr().out


def test_pickled_data_is_not_loaded(desk: Desk, worker: GenerationWorker, raw: Redis, tmp_path: Path) -> None:
    evil = tmp_path / "evil"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.mkdir, (evil,)  # type: ignore[return-value]

    job = desk.submit()
    raw.hset(f"rq:job:{job}", "data", DefaultSerializer.dumps(Bomb()))
    after = desk.submit()
    worker.work(burst=True)
    assert not evil.exists()
    assert desk.record(after).status is Status.SUCCEEDED


def test_an_unreadable_job_ends_as_lost_when_its_tries_are_used_up(
    desk: Desk, worker: GenerationWorker, raw: Redis
) -> None:
    job = desk.submit()
    raw.hset(f"rq:job:{job}", "data", b"\xff not json")
    worker.work(burst=True)
    record = desk.record(job)
    assert record.status is Status.FAILED
    assert record.error
    assert record.error.code == "worker_lost"


def test_an_abandoned_job_is_taken_over(desk: Desk, worker: GenerationWorker, raw: Redis) -> None:
    job = desk.submit()
    abandon(job, worker, raw)
    worker.last_cleaned_at = None
    worker.work(burst=True)
    assert desk.record(job).status is Status.SUCCEEDED


def test_a_job_abandoned_too_often_ends_as_lost(desk: Desk, worker: GenerationWorker, raw: Redis) -> None:
    job = desk.submit()
    raw.hset(f"rq:job:{job}", "retries_left", 0)
    abandon(job, worker, raw)
    worker.last_cleaned_at = None
    worker.work(burst=True)
    record = desk.record(job)
    assert record.status is Status.FAILED
    assert record.error
    assert record.error.code == "worker_lost"


def abandon(job_id: str, worker: GenerationWorker, raw: Redis) -> None:
    """Take a job as a worker does that is killed then, longer ago than `JOB_TTL`."""
    queue = worker.queues[0]
    raw.lrem(queue.key, 1, job_id)
    job = Job.fetch(job_id, connection=raw, serializer=JSONSerializer)
    job.set_status(JobStatus.STARTED)
    raw.zadd(queue.started_job_registry.key, {f"{job_id}:gone": 1})


def test_a_worker_shows_what_it_does(desk: Desk, worker: GenerationWorker) -> None:
    def shown() -> WorkerBeat:
        text: Any = desk.redis.get(worker_key("worker-1"))
        assert text
        return WorkerBeat.model_validate(json.loads(text))

    assert (shown().model, shown().state) == ("shapes", WorkerState.LOADING)
    assert desk.redis.sismember(WORKERS_KEY, "worker-1")
    assert 0 < desk.redis.ttl(worker_key("worker-1")) <= 10
    desk.submit()
    worker.work(burst=True)
    worker.beat.__exit__()
    assert not desk.redis.exists(worker_key("worker-1"))
    assert not desk.redis.sismember(WORKERS_KEY, "worker-1")
