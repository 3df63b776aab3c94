"""What a submission would do and take, told without running it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from heapq import heapreplace
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from contracts.baseline import baseline_of, reserved_nfe
from contracts.jobs import Record, eta, now
from contracts.plans import NfePlan, plan_of
from contracts.requests import ResolvedRequest


class Part(BaseModel):
    """Base of the parts of a quote."""

    model_config = ConfigDict(frozen=True)


class Pace(Part):
    """How fast a model's jobs went lately: sums in which a newer job counts more than an older one."""

    jobs: float = 0.0
    nfe: float = 0.0
    seconds: float = 0.0

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> "Pace":
        """Read a Redis hash; without fields nothing has been measured."""
        return cls.model_validate(fields)

    @property
    def nfe_per_second(self) -> float | None:
        """The rate of one worker; None where nothing has been measured."""
        return self.nfe / self.seconds if self.seconds > 0 and self.nfe > 0 else None

    @property
    def seconds_per_job(self) -> float | None:
        """What a job took; None where nothing has been measured."""
        return self.seconds / self.jobs if self.seconds > 0 else None


class QueueView(Part):
    """The queue a submission would join."""

    position: int = Field(description="generations that wait and come before it")
    workers: int = Field(description="live workers of the model")
    wait_seconds: float | None = Field(description="expected; null without a worker or a measurement")


class Quote(Part):
    """The answer of `POST /v1/quotes`."""

    object: Literal["quote"] = "quote"
    request: ResolvedRequest
    plan: NfePlan
    baseline: NfePlan | None = Field(description="of the baseline, on top of the plan; null: not asked for")
    nfe_per_second: float | None = Field(
        description="of one worker, over the model's recent jobs of this size, else of any; null: none yet"
    )
    expected_seconds: float | None = Field(description="of search and baseline; null: no rate measured yet")
    queue: QueueView


def quote(
    request: ResolvedRequest,
    rate: float | None,
    pace: Pace,
    position: int,
    states: Mapping[str, int],
    running: Sequence[Record] = (),
) -> Quote:
    """Tell what a submission would do and take now.

    Args:
        request: the submission with every default filled in.
        rate: NFE per second of jobs like it; None where nothing has been measured.
        pace: of its model.
        position: generations that wait for the model and come before it.
        states: how many of its live workers are `ready`, and how many `busy`.
        running: the generations of the model that run.
    """
    plan = plan_of(request)
    baseline = plan_of(baseline_of(request)) if request.baseline else None
    expected = plan.nfe / rate if rate else None
    if expected is not None and request.budget.seconds is not None:
        expected = min(expected, request.budget.seconds)
    if rate and expected is not None and baseline:
        expected += baseline.nfe / rate
    ready, busy = states.get("ready", 0), states.get("busy", 0)
    left = [remaining(record, pace, now()) for record in running]
    return Quote(
        request=request,
        plan=plan,
        baseline=baseline,
        nfe_per_second=rounded(rate),
        expected_seconds=rounded(expected),
        queue=QueueView(
            position=position,
            workers=ready + busy,
            wait_seconds=rounded(wait(pace, position, ready, busy, left)),
        ),
    )


def remaining(record: Record, pace: Pace, at: datetime) -> float | None:
    """Expected seconds until a running job ends: at its model's recent rate, else at its own so far."""
    rate = pace.nfe_per_second
    left = (reserved_nfe(record.request) - record.progress.spent) / rate if rate else eta(record, at)
    limit = record.request.budget.seconds
    if left is None or limit is None or record.started_at is None or record.request.baseline:
        return left
    return min(left, max(limit - (at - record.started_at).total_seconds(), 0.0))


def wait(pace: Pace, position: int, ready: int, busy: int, running: Sequence[float | None]) -> float | None:
    """Expected seconds until a worker takes a job.

    Args:
        pace: of the model; each job ahead takes what a recent one took.
        position: jobs ahead.
        ready: workers that wait for one.
        busy: workers that run one.
        running: seconds until each running job ends; where that is not known, half of what a job took.
    """
    if ready > position:
        return 0.0
    usual = pace.seconds_per_job
    half = None if usual is None else usual / 2
    known = [half if left is None else left for left in running]
    ends = [0.0] * ready + [*known, *[half] * busy][:busy]
    if not ends or None in ends or (usual is None and position):
        return None
    free = sorted(cast("list[float]", ends))
    for _ in range(position):
        heapreplace(free, free[0] + (usual or 0.0))
    return free[0]


def rounded(value: float | None) -> float | None:
    """Return a number with as many digits as an estimate has."""
    return None if value is None else float(f"{value:.3g}")
