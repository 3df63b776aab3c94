"""Whose worker is taken for dead, whatever the clocks say."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from contracts.keys import queue_name
from tests.workers.conftest import Desk
from workers.beat import INTERVAL
from workers.leases import GAP, SILENCE, Leases
from workers.worker import JOB_TTL, GenerationQueue, take_up_again

HOUR = 3600.0


@dataclass
class Watched:
    """A job that some worker runs, and one who watches, each with the clock a test gives it."""

    raw: Redis
    queue: Queue
    job: Job
    execution: Execution
    leases: Leases
    present: float = 1000.0

    def beat(self) -> None:
        """Show life, as RQ's worker does."""
        with self.raw.pipeline() as pipeline:
            self.execution.heartbeat(self.job.started_job_registry, JOB_TTL, pipeline)
            pipeline.execute()

    def pass_by(self, seconds: float, *, beating: bool) -> None:
        """Let time pass; everybody beats, and looks at all others, as often as a worker does."""
        for _ in range(math.ceil(seconds / INTERVAL)):
            self.present += INTERVAL
            if beating:
                self.beat()
            self.leases.look()

    @property
    def taken_over(self) -> bool:
        """Whether the job is found abandoned now."""
        self.leases.look()
        self.leases.take_over(self.leases.silent, [lambda job, *_: take_up_again(job)])
        return self.queue.job_ids == [self.job.id]


@pytest.fixture
def watched(desk: Desk, redis_url: str) -> Iterator[Watched]:
    with Redis.from_url(redis_url) as raw:
        queue = GenerationQueue(queue_name("shapes"), connection=raw, serializer=JSONSerializer)
        job = Job.fetch(desk.submit(), connection=raw, serializer=JSONSerializer)
        raw.lrem(queue.key, 1, job.id)
        job.set_status(JobStatus.STARTED)
        with raw.pipeline() as pipeline:
            execution = Execution.create(job, JOB_TTL, pipeline)
            pipeline.execute()
        watched = Watched(raw, queue, job, execution, Leases(queue))
        watched.leases.clock = lambda: watched.present
        watched.leases.look()
        yield watched


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock that RQ reads, for this process."""

    def shift(seconds: float) -> None:
        stamp: Any = lambda: int(time.time() + seconds)  # noqa: E731
        for module in ("rq.registry", "rq.executions"):
            monkeypatch.setattr(f"{module}.current_timestamp", stamp)

    return shift


def test_a_worker_that_beats_keeps_its_job(watched: Watched) -> None:
    watched.pass_by(60, beating=True)
    assert not watched.taken_over


def test_a_silent_worker_loses_it_soon(watched: Watched) -> None:
    watched.pass_by(30, beating=True)
    watched.pass_by(SILENCE - INTERVAL, beating=False)
    assert not watched.taken_over
    watched.pass_by(INTERVAL, beating=False)
    assert watched.taken_over


def test_what_expires_of_a_silent_worker_is_no_sign_of_life(watched: Watched) -> None:
    watched.pass_by(SILENCE - INTERVAL, beating=False)
    watched.raw.delete(watched.execution.key)  # `JOB_TTL` after the last beat, or when Redis' clock is set
    watched.pass_by(INTERVAL, beating=False)
    assert watched.taken_over


def test_a_worker_whose_sign_expired_and_that_beats_again_keeps_its_job(watched: Watched) -> None:
    watched.pass_by(SILENCE - INTERVAL, beating=False)
    watched.raw.delete(watched.execution.key)
    watched.pass_by(2 * SILENCE, beating=True)
    assert not watched.taken_over


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 10.0, -10.0])
def test_a_worker_whose_clock_differs_keeps_its_job(
    watched: Watched, shifted: Callable[[float], None], seconds: float
) -> None:
    for _ in range(4):
        shifted(seconds)
        watched.pass_by(3, beating=True)
        shifted(0)
        assert not watched.taken_over


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_dead_worker_whose_clock_differed_loses_it_as_soon(
    watched: Watched, shifted: Callable[[float], None], seconds: float
) -> None:
    shifted(seconds)
    watched.pass_by(3, beating=True)
    shifted(0)
    assert not watched.taken_over
    watched.pass_by(SILENCE, beating=False)
    assert watched.taken_over


def test_whoever_could_not_look_does_not_judge(watched: Watched) -> None:
    watched.present += 100 * GAP  # Redis was away: nobody could beat
    assert not watched.taken_over
    watched.pass_by(3, beating=True)
    assert not watched.taken_over
