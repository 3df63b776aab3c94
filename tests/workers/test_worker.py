"""The RQ side: what a worker takes, refuses and survives."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import DefaultSerializer, JSONSerializer

from contracts.beats import WorkerBeat, WorkerState
from contracts.jobs import Status
from contracts.keys import JOB_FUNCTION, WORKERS_KEY, job_key, line_key, queue_name, worker_key
from tests.workers.conftest import Desk, wait_for
from workers import worker as worker_module
from workers.beat import Beat
from workers.hold import Hold
from workers.leases import SILENCE, Sign
from workers.messages import Ending, Spec
from workers.resident import Resident
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor
from workers.worker import JOB_TTL, GenerationWorker


@pytest.fixture
def raw(redis_url: str) -> Iterator[Redis]:
    """A client of `redis_url` that returns bytes, as RQ needs it."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def beat(desk: Desk) -> Iterator[Beat]:
    with Beat(desk.runner.connection, "worker-1", "shapes") as beat:
        yield beat


@pytest.fixture
def worker(desk: Desk, raw: Redis, beat: Beat, tiny_model: Path) -> Iterator[GenerationWorker]:
    """A worker in this process, its engine in another; its signal handlers are taken away again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker_settings = WorkerSettings(device="cpu", model_paths={"shapes": tiny_model})
    spec = Spec("shapes", "worker-1", desk.settings.redis_url or "", desk.settings, worker_settings)
    engine = Resident(spec, threading.Event())
    store = desk.runner.store
    yield GenerationWorker(raw, Supervisor(desk.runner.connection, engine, store, 3, beat.show), beat)
    engine.kill()
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


def test_a_job_whose_loss_cannot_be_told_is_not_forgotten(
    desk: Desk, worker: GenerationWorker, raw: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    raw.hset(f"rq:job:{job}", "data", b"\xff not json")

    def away(*_: object) -> None:
        raise redis_py.ConnectionError("gone")

    monkeypatch.setattr(worker.supervisor, "mend", lambda: True)
    monkeypatch.setattr(worker.supervisor, "report_lost", away)
    worker.work(burst=True)
    [(found, _)] = running(queue)
    assert (found, status_of(queue, job)) == (job, JobStatus.STARTED)


def test_an_abandoned_job_is_taken_over(
    desk: Desk, worker: GenerationWorker, raw: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    job = desk.submit()
    abandon(job, worker, raw)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
    worker.work(burst=True)
    assert desk.record(job).status is Status.SUCCEEDED
    assert not Job.exists(job, connection=raw)


def test_a_job_abandoned_too_often_ends_as_lost(desk: Desk, worker: GenerationWorker, raw: Redis) -> None:
    job = desk.submit()
    raw.hset(job_key(job), mapping={"status": "running", "attempts": 3, "lost": 2})
    abandon(job, worker, raw)
    worker.work(burst=True)
    record = desk.record(job)
    assert record.status is Status.FAILED
    assert record.error
    assert record.error.code == "worker_lost"


def test_vanished_workers_cost_a_job_none_of_its_tries(
    desk: Desk, worker: GenerationWorker, raw: Redis
) -> None:
    job = desk.submit()
    waiting = desk.submit()
    for _ in range(5):
        abandon(job, worker, raw)
    assert worker.queues[0].job_ids == [job]
    worker.work(burst=True)
    records = [desk.record(each) for each in (job, waiting)]
    assert [record.status for record in records] == [Status.SUCCEEDED] * 2
    assert records[0].completed_at < records[1].completed_at  # type: ignore[operator]


def test_a_worker_takes_jobs_in_their_turn(desk: Desk, worker: GenerationWorker) -> None:
    jobs = {priority: desk.submit(priority=priority) for priority in ("low", "normal", "high")}
    worker.work(burst=True)
    ends = {desk.record(job).completed_at: priority for priority, job in jobs.items()}
    assert [ends[end] for end in sorted(ends, key=str)] == ["high", "normal", "low"]


def runs(
    worker: GenerationWorker, monkeypatch: pytest.MonkeyPatch, run: Callable[[str], Ending], jobs: int = 1
) -> None:
    """Have the worker take one job, or several, with this in the place of its engine."""
    monkeypatch.setattr(worker.supervisor, "mend", lambda: True)
    monkeypatch.setattr(worker.supervisor, "_has_engine", lambda _: True)
    monkeypatch.setattr(worker.supervisor.engine, "run", lambda job_id, *_: run(job_id))
    worker.work(burst=True, max_jobs=jobs)


def taken_over(job_id: str, worker: GenerationWorker) -> None:
    """Have another worker run what this one runs, as it does where this one was silent."""
    registry = worker.leases.registry
    worker.connection.zremrangebyrank(registry.key, 0, -1)
    worker.connection.zadd(registry.key, {f"{job_id}:theirs": 1})


def running(queue: Queue) -> list[tuple[str, str]]:
    """What RQ lists as run: job and execution."""
    return queue.started_job_registry.get_job_and_execution_ids(cleanup=False)


def test_a_job_that_another_worker_has_taken_over_is_left_to_it(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()

    def run(job_id: str) -> Ending:
        taken_over(job_id, worker)
        return Ending.OVERTAKEN

    runs(worker, monkeypatch, run)
    assert status_of(queue, job) is JobStatus.STARTED
    assert (running(queue), queue.job_ids) == ([(job, "theirs")], [])


def test_a_job_that_nobody_else_has_is_queued_by_who_leaves_it(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, waiting = desk.submit(), desk.submit()
    runs(worker, monkeypatch, lambda _: Ending.OVERTAKEN)
    assert status_of(queue, job) is JobStatus.QUEUED
    assert (running(queue), queue.job_ids) == ([], [job, waiting])


def test_a_worker_that_lost_its_job_with_its_engine_does_not_take_it_back(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    theirs: list[Hold] = []

    def run(job_id: str) -> Ending:
        taken_over(job_id, worker)
        theirs.append(Hold.take(desk.runner.connection, desk.record(job_id), "worker-2"))
        return Ending.LOST

    runs(worker, monkeypatch, run)
    [hold] = theirs
    hold.write()
    assert (running(queue), queue.job_ids) == ([(job, "theirs")], [])


def test_a_job_listed_twice_is_left_to_who_runs_it(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    queue.connection.zadd(queue.started_job_registry.key, {f"{job}:theirs": 1})
    ran: list[str] = []

    def run(job_id: str) -> Ending:
        ran.append(job_id)
        return Ending.DONE

    runs(worker, monkeypatch, run)
    assert ran == []
    # Else it would not be found abandoned, should the other worker vanish.
    assert status_of(queue, job) is JobStatus.STARTED
    assert (running(queue), queue.job_ids) == ([(job, "theirs")], [])


def given_back(desk: Desk) -> Callable[[str], Ending]:
    """What an engine does that gives its job back."""

    def run(job_id: str) -> Ending:
        Hold.take(desk.runner.connection, desk.record(job_id), "w").write(status=Status.QUEUED)
        return Ending.GIVEN_BACK

    return run


def test_a_job_given_back_is_next_once_though_redis_lost_its_reply(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, waiting = desk.submit(), desk.submit()
    execute, lost = Pipeline._execute_transaction, list[str]()  # noqa: SLF001

    def flaky(self: Pipeline, connection: Any, commands: Any, raise_on_error: Any) -> Any:  # noqa: ANN401
        reply = execute(self, connection, commands, raise_on_error)
        if not lost and any(command[0][0] == "EVAL" for command in commands):
            lost.append(job)
            raise redis_py.ConnectionError("no reply")
        return reply

    monkeypatch.setattr(Pipeline, "_execute_transaction", flaky)
    runs(worker, monkeypatch, given_back(desk))
    assert lost
    assert (running(queue), queue.job_ids) == ([], [job, waiting])


def test_a_job_given_back_by_who_was_silent_is_next_once(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, waiting = desk.submit(), desk.submit()

    def run(job_id: str) -> Ending:
        queue.connection.delete(queue.started_job_registry.key)
        queue.push_job_id(job_id, at_front=True)
        return given_back(desk)(job_id)

    runs(worker, monkeypatch, run)
    assert (running(queue), queue.job_ids) == ([], [job, waiting])


def test_jobs_of_a_newer_version_wait_and_keep_nobody_waiting(
    desk: Desk, worker: GenerationWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "UNREADABLE_PAUSE", 0.0)
    ran: list[str] = []

    def run(job_id: str) -> Ending:
        ran.append(job_id)
        return Ending.DONE

    newer, ours = [desk.submit(), desk.submit()], [desk.submit(), desk.submit()]
    for job in newer:
        desk.redis.hset(job_key(job), "of_the_next_version", "a secret")
    before = [desk.redis.hgetall(job_key(job)) for job in newer]
    runs(worker, monkeypatch, run, jobs=10)
    assert ran == ours
    assert [desk.redis.hgetall(job_key(job)) for job in newer] == before
    assert "of_the_next_version: Extra inputs are not permitted" in caplog.text
    assert "a secret" not in caplog.text
    for job in newer:
        desk.redis.hdel(job_key(job), "of_the_next_version")
    runs(worker, monkeypatch, run, jobs=2)
    assert sorted(ran[2:]) == sorted(newer)


def test_a_job_of_a_newer_version_that_has_ended_is_forgotten(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    desk.redis.hset(job_key(job), mapping={"status": "canceled", "of_the_next_version": "1"})
    runs(worker, monkeypatch, lambda _: Ending.LOST)
    assert not Job.exists(job, connection=queue.connection)
    assert desk.redis.zrange(line_key("shapes"), 0, -1) == queue.job_ids == []


def test_a_worker_that_cannot_read_a_job_leaves_it_to_others_for_a_while(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, list[str]]] = []

    def wait(seconds: float) -> bool:
        waits.append((seconds, queue.job_ids))
        return False

    job = desk.submit()
    desk.redis.hset(job_key(job), "of_the_next_version", "1")
    monkeypatch.setattr(worker.supervisor.stopping, "wait", wait)
    runs(worker, monkeypatch, lambda _: Ending.DONE)
    assert waits == [(worker_module.UNREADABLE_PAUSE, [job])]


def test_a_redis_away_costs_a_job_none_of_its_tries(
    desk: Desk, worker: GenerationWorker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    queue.connection.hdel(f"rq:job:{job}", "retries_left")

    def run(_: str) -> Ending:
        raise redis_py.ConnectionError("gone")

    runs(worker, monkeypatch, run)
    assert desk.record(job).status is Status.QUEUED
    assert queue.job_ids == [job]


def test_a_job_whose_taker_died_before_it_began_is_found_soon(
    desk: Desk, worker: GenerationWorker, raw: Redis
) -> None:
    job = desk.submit()
    queue = worker.queues[0]
    raw.lmove(queue.key, queue.intermediate_queue_key)
    worker.clean_registries()
    assert queue.count == 0
    raw.set(queue.intermediate_queue.get_first_seen_key(job), time.time() - JOB_TTL - 1)
    worker.clean_registries()
    assert queue.job_ids == [job]
    assert raw.llen(queue.intermediate_queue_key) == 0


def test_a_worker_killed_while_it_looked_holds_nobody_up_for_long(
    worker: GenerationWorker, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker_module.MAINTENANCE_LOCK <= 10
    monkeypatch.setattr(worker_module, "MAINTENANCE_LOCK", 60)  # it must not end between two lines of this
    queue = worker.queues[0]
    assert queue.acquire_maintenance_lock()
    assert not queue.acquire_maintenance_lock()
    assert 0 < raw.ttl(queue.registry_cleaning_key) <= 60


def test_a_clock_that_is_set_back_stops_no_look_for_abandoned_jobs(
    desk: Desk, worker: GenerationWorker, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAINTENANCE", 600)
    job = desk.submit()
    queue = worker.queues[0]
    worker.last_cleaned_at = datetime.now(UTC) + timedelta(hours=1)  # by the clock as it was
    assert worker.should_run_maintenance_tasks
    raw.lmove(queue.key, queue.intermediate_queue_key)
    raw.set(queue.intermediate_queue.get_first_seen_key(job), time.time() + 3600)
    worker.clean_registries()
    assert queue.job_ids == [job]
    assert not worker.should_run_maintenance_tasks


def test_what_ends_the_loop_of_rq_does_not_end_the_worker(
    worker: GenerationWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception | None] = [redis_py.ConnectionError("gone"), None, redis_py.TimeoutError("slow")]

    def work(**_: object) -> bool:
        if not faults:
            worker.supervisor.stopping.set()
        elif fault := faults.pop(0):
            raise fault
        return False

    monkeypatch.setattr(worker, "work", work)
    worker.work_on()
    assert faults == []


def abandon(job_id: str, worker: GenerationWorker, raw: Redis) -> None:
    """Take a job as a worker does that is killed then, has been silent for long and is found so."""
    queue = worker.queues[0]
    raw.lrem(queue.key, 1, job_id)
    job = Job.fetch(job_id, connection=raw, serializer=JSONSerializer)
    job.set_status(JobStatus.STARTED)
    raw.zadd(queue.started_job_registry.key, {f"{job_id}:gone": time.time() + 3600})
    # What RQ has of the execution itself expires before the mention of it.
    raw.zadd(job.execution_registry.key, {"gone": time.time() + 60})
    worker.leases.look()
    worker.leases.seen[f"{job_id}:gone"] = Sign(None, time.monotonic() - SILENCE)
    wait_for(lambda: job_id in queue.job_ids)  # the beat's thread watches


def test_a_worker_that_finds_something_broken_goes_on_beating(
    beat: Beat, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        raise ValueError("what no one expected")

    beat.also = look
    wait_for(lambda: len(looks) > 2)
    assert "a heartbeat failed" in caplog.text


@pytest.mark.usefixtures("beat")
def test_names_of_killed_workers_are_forgotten(desk: Desk) -> None:
    desk.redis.sadd(WORKERS_KEY, "killed")
    with Beat(desk.runner.connection, "worker-2", "shapes"):
        assert desk.redis.smembers(WORKERS_KEY) == {"worker-1", "worker-2"}


def test_a_worker_shows_what_it_does(desk: Desk, worker: GenerationWorker, beat: Beat) -> None:
    def shown() -> WorkerBeat:
        text: Any = desk.redis.get(worker_key("worker-1"))
        assert text
        return WorkerBeat.model_validate(json.loads(text))

    assert (shown().model, shown().state) == ("shapes", WorkerState.LOADING)
    assert desk.redis.sismember(WORKERS_KEY, "worker-1")
    assert 0 < desk.redis.ttl(worker_key("worker-1")) <= 10
    desk.submit()
    worker.work(burst=True)
    beat.__exit__()
    assert not desk.redis.exists(worker_key("worker-1"))
    assert not desk.redis.sismember(WORKERS_KEY, "worker-1")
