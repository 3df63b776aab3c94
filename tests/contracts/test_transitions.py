"""The script through which every job changes, on a real Valkey."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from contracts.events import Canceled, Event, Queued, Started, decode
from contracts.jobs import FINAL_STATUSES, Record, Status, hash_fields
from contracts.keys import JOBS_KEY, events_key, job_key, totals_key
from contracts.resolution import accept
from contracts.transitions import DELETE_SCRIPT, WRITE_SCRIPT, write_args, write_keys


@pytest.fixture
def job(redis: Redis) -> str:
    record = Record.new(accept({"prompt": "x"}))
    fields: Any = record.to_hash()
    redis.hset(job_key(record.id), mapping=fields)
    redis.zadd(JOBS_KEY, {record.id: 0})
    return record.id


def write(redis: Redis, job: str, **options: Any) -> list:  # noqa: ANN401
    keys = write_keys(job)
    answer: Any = redis.eval(WRITE_SCRIPT, len(keys), *keys, *write_args(**options))
    return answer


def stored(redis: Redis, job: str) -> Record:
    fields: Any = redis.hgetall(job_key(job))
    return Record.from_hash(fields)


def published(redis: Redis, job: str) -> list[Event]:
    entries: Any = redis.xrange(events_key(job))
    events = [decode(fields["event"]) for _, fields in entries]
    assert [entry_id for entry_id, _ in entries] == [f"{event.seq}-0" for event in events]
    return events


def test_one_write_changes_status_fields_and_events(redis: Redis, job: str) -> None:
    answer = write(
        redis,
        job,
        allowed=[Status.QUEUED, Status.RUNNING],
        status=Status.RUNNING,
        fence=0,
        fields=hash_fields(attempts=1),
        events=[Queued(), Started(attempt=1, worker="w")],
    )
    assert answer == [1, "running", 2]
    record = stored(redis, job)
    assert (record.status, record.attempts, record.events, record.status_sequence) == ("running", 1, 2, 1)
    assert [(event.seq, event.type) for event in published(redis, job)] == [(1, "queued"), (2, "started")]


@pytest.mark.parametrize("final", FINAL_STATUSES)
def test_a_final_status_never_changes(redis: Redis, job: str, final: Status) -> None:
    write(redis, job, allowed=[Status.QUEUED], status=final)
    before = redis.hgetall(job_key(job))
    for status in Status:
        answer = write(
            redis, job, allowed=[Status.QUEUED, Status.RUNNING], status=status, events=[Canceled(nfe_spent=1)]
        )
        assert answer == [0, final, 0]
    assert redis.hgetall(job_key(job)) == before
    assert published(redis, job) == []


def test_a_name_within_a_name_is_not_a_status(redis: Redis, job: str) -> None:
    redis.hset(job_key(job), "status", "run")
    assert write(redis, job, allowed=[Status.RUNNING])[0] == 0


def test_a_stale_execution_writes_nothing(redis: Redis, job: str) -> None:
    write(redis, job, allowed=[Status.QUEUED], status=Status.RUNNING, fields=hash_fields(attempts=2))
    assert write(redis, job, allowed=[Status.RUNNING], fence=1, events=[Queued()]) == [0, "running", 0]
    assert write(redis, job, allowed=[Status.RUNNING], fence=2, events=[Queued()]) == [1, "running", 1]


def test_a_write_that_comes_again_is_told_as_applied_and_changes_nothing(redis: Redis, job: str) -> None:
    def publish(number: int, **options: Any) -> list:  # noqa: ANN401
        return write(redis, job, allowed=[Status.QUEUED], fence=0, writer="w", number=number, **options)

    assert publish(1, events=[Queued()]) == [1, "queued", 1]
    assert publish(2, fields=hash_fields(request_id="second")) == [1, "queued", 1]
    write(redis, job, allowed=[Status.QUEUED], fields=hash_fields(cancel_requested=True))  # as the API does
    assert publish(3, events=[Canceled(nfe_spent=1)], status=Status.CANCELED) == [1, "canceled", 2]
    before = redis.hgetall(job_key(job)), redis.hgetall(totals_key("shapes"))
    for late in (1, 2, 3):
        given = {"events": [Queued()], "fields": hash_fields(request_id="late"), "status": Status.QUEUED}
        assert publish(late, **given) == [1, "canceled", 2]
    assert (redis.hgetall(job_key(job)), redis.hgetall(totals_key("shapes"))) == before
    assert [event.type for event in published(redis, job)] == ["queued", "canceled"]
    assert stored(redis, job).status_sequence == 4


def test_each_writer_counts_its_own_writes(redis: Redis, job: str) -> None:
    for writer in ("w", "another"):
        for number in (1, 2):
            write(redis, job, allowed=[Status.QUEUED], events=[Queued()], writer=writer, number=number)
    assert len(published(redis, job)) == 4


def test_a_deleted_job_is_not_brought_back(redis: Redis, job: str) -> None:
    keys = [*write_keys(job), JOBS_KEY, "extra"]
    redis.set("extra", 1)
    assert redis.eval(DELETE_SCRIPT, len(keys), *keys, job, ",".join(FINAL_STATUSES)) == [0, "queued"]
    write(redis, job, allowed=[Status.QUEUED], status=Status.CANCELED, events=[Canceled(nfe_spent=0)])
    assert redis.eval(DELETE_SCRIPT, len(keys), *keys, job, ",".join(FINAL_STATUSES)) == [1, "deleted"]
    assert write(redis, job, allowed=list(Status), events=[Queued()]) == [0, "deleted", 0]
    assert redis.keys("*") == [totals_key("shapes")]


def test_events_of_many_writers_have_no_gap_and_no_repeat(redis: Redis, job: str) -> None:
    def publish(count: int) -> None:
        write(redis, job, allowed=[Status.QUEUED], events=[Queued()] * count)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, [1, 2, 3] * 30))
    assert [event.seq for event in published(redis, job)] == list(range(1, 181))


def test_of_two_transitions_one_wins(redis: Redis, job: str) -> None:
    def move(status: Status) -> int:
        return write(redis, job, allowed=[Status.QUEUED], status=status)[0]

    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(move, [Status.CANCELED, Status.FAILED] * 8))
    assert sum(applied) == 1
