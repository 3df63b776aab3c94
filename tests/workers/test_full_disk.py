"""A disk that is full for the engine: the kernel refuses each byte that it writes to any file."""

import hashlib

import pytest

from contracts.events import CandidateEvent, LevelEvent
from contracts.jobs import Status
from contracts.keys import WORKERS_KEY, image_path, trace_path
from tests.chaos.processes import engine_of, full_disk
from tests.workers.conftest import Desk, Start, wait_for
from workers import store as store_module


def test_a_search_needs_no_disk_and_its_result_waits_for_one(desk: Desk, start: Start) -> None:
    worker = start()
    finished = desk.submit(seed=7)
    wait_for(lambda: desk.record(finished).status.final)
    engine = engine_of(worker.pid)
    assert engine
    with full_disk(engine):
        job = desk.submit()
        wait_for(lambda: sum(isinstance(event, CandidateEvent) for event in desk.events(job)) == 60)
        running = desk.record(job)
        assert (running.status, running.checkpoint) == (Status.RUNNING, None)
        levels = [event for event in desk.events(job) if isinstance(event, LevelEvent)]
        assert levels
        assert not any(level.preview_url for level in levels)
    wait_for(lambda: desk.record(job).status.final)
    for each in (finished, job):
        record = desk.record(each)
        assert (record.status, record.attempts) == (Status.SUCCEEDED, 1)
        assert record.result
        content = desk.file(image_path(each, 0, "png")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.result.images[0].sha256
    assert desk.redis.scard(WORKERS_KEY) == 1
    assert not list(desk.file(job).rglob("*.part"))


def test_a_disk_that_stays_full_fails_the_job_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSES", (0.0, 0.0))
    ticks: list[None] = []
    desk.runner.tick = lambda: ticks.append(None)
    with full_disk():
        record = desk.run()
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "storage_failed")
    assert record.error.detail == "File too large"
    assert record.usage
    assert record.usage.nfe_spent == 60
    assert not list(desk.file(record.id).rglob("*.*"))
    assert desk.run().status is Status.SUCCEEDED


def test_what_a_search_can_do_without_is_not_asked_for_again_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REST", 30.0)
    with full_disk():
        assert not desk.runner.store.offer("a", b"content")
    assert not desk.runner.store.offer("a", b"content")
    desk.runner.store.put("a", b"content")
    monkeypatch.setattr(desk.runner.store, "_resting_until", 0.0)
    assert desk.runner.store.offer("b", b"content")


def test_a_trace_that_cannot_be_stored_is_in_the_stream(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    store = desk.runner.store
    write = store._write  # noqa: SLF001

    def refusing(path: str, content: bytes) -> None:
        if path.endswith((".jsonl", ".safetensors")):
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(store, "_write", refusing)
    record = desk.run()
    assert record.status is Status.SUCCEEDED
    assert record.checkpoint is None
    assert not desk.file(trace_path(record.id)).exists()
    assert sum(isinstance(event, CandidateEvent) for event in desk.events(record.id)) == 60
