"""Records, documents and ids."""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from contracts.beats import WorkerState
from contracts.jobs import (
    ID_PATTERN,
    JobError,
    Progress,
    Record,
    Seconds,
    Status,
    Usage,
    document,
    hash_fields,
    new_id,
    now,
)
from contracts.resolution import accept


def record(**attributes: object) -> Record:
    return Record.new(accept({"prompt": "x"})).model_copy(update=attributes)


def test_ids_sort_by_time_and_differ() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert len({new_id() for _ in range(1000)}) == 1000
    assert all(re.match(ID_PATTERN, i) for i in ids)


def test_a_record_survives_redis() -> None:
    full = record(
        status=Status.FAILED,
        attempts=2,
        progress=Progress(nfe_spent=3, nfe_budget=200, level=1, levels=10, best_reward=0.25),
        usage=Usage(nfe_spent=3, model_forwards=3, reward_calls=1, decodes=1, seconds=Seconds(model=0.5)),
        error=JobError(code="worker_lost", title="t", detail="d"),
        cancel_requested=True,
        idempotency_key="k",
        started_at=now(),
        completed_at=now(),
    )
    for one in (full, record()):
        assert Record.from_hash(one.to_hash()) == one


def test_a_record_of_a_later_version_is_shown_and_not_run() -> None:
    fields = record().to_hash()
    request = json.loads(fields["request"])
    request["search"]["later"] = request["sampler"]["later"] = request["later"] = 1
    later = {**fields, "request": json.dumps(request), "later": "1"}
    assert Record.from_hash(later, extra="ignore") == Record.from_hash(fields)
    with pytest.raises(ValidationError, match="later"):
        Record.from_hash(later)


def test_a_job_that_ended_before_nfe_unspent_was_told_does_not_tell_it() -> None:
    spent = {"nfe_spent": 3, "nfe_unused": 0, "seconds": {"total": 1.0}}
    earlier = {**record().to_hash(), "usage": json.dumps({**spent, "baseline": spent})}
    usage = document(Record.from_hash(earlier)).usage
    assert usage
    assert usage.baseline
    assert usage.nfe_unspent is usage.unspent_reason is usage.baseline.nfe_unspent is None


def test_an_end_that_no_execution_tells_of_counts_what_was_left() -> None:
    progress = Progress(nfe_spent=120, nfe_budget=200, levels=10)
    usage = record(progress=progress).usage_so_far("canceled")
    assert usage
    assert (usage.nfe_unspent, usage.unspent_reason) == (80, "the job was canceled")
    compared = record(progress=progress.model_copy(update={"baseline_nfe_spent": 32})).usage_so_far("error")
    assert compared
    assert (compared.nfe_unspent, compared.unspent_reason) == (80, None)  # the search had ended before
    assert compared.baseline
    assert (compared.baseline.nfe_unspent, compared.baseline.unspent_reason) == (88, "the job failed")
    assert record().usage_so_far("error") is None


def test_a_state_of_a_later_version_is_none_that_serves() -> None:
    assert not WorkerState("dreaming").serving


def test_a_field_no_record_has_is_refused() -> None:
    with pytest.raises(ValueError, match="progres"):
        hash_fields(progres=1)


def test_expected_time_is_at_the_rate_so_far() -> None:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    progress = Progress(nfe_spent=50, nfe_budget=200, levels=10)
    running = record(status=Status.RUNNING, started_at=started, progress=progress)
    view = document(running, at=started + timedelta(seconds=5)).progress
    assert (view.eta_seconds, view.fraction) == (15.0, 0.25)
    assert document(running, at=started - timedelta(seconds=5)).progress.eta_seconds == 0
    assert document(running.model_copy(update={"status": Status.CANCELED})).progress.eta_seconds is None


def test_only_a_queued_job_has_a_position() -> None:
    assert document(record(), queue_position=3).progress.queue_position == 3
    assert document(record(status=Status.RUNNING), queue_position=3).progress.queue_position is None


@pytest.mark.parametrize("status", list(Status))
def test_which_statuses_are_final(status: Status) -> None:
    assert status.final == (status in ("succeeded", "failed", "canceled"))
