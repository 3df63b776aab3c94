"""The job document a client reads, and the record in Redis it is made from."""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from contracts.baseline import baseline_of, reserved_nfe
from contracts.errors import JobErrorCode
from contracts.keys import cancel_url, events_url, extend_url, generation_url, trace_url
from contracts.requests import ResolvedRequest
from contracts.stops import ByLimit, StopReason, why_unspent
from contracts.webhooks import Delivery

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
ID_PATTERN = r"^gen_[0-9a-hjkmnp-tv-z]{26}$"


class Status(StrEnum):
    """A job's state; the last three are final and never change."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self in FINAL_STATUSES


FINAL_STATUSES = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


class Document(BaseModel):
    """Base of the parts of a job document."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Progress(Document):
    """How far a search is, as the worker stores it; `level` counts from 0 to `levels`."""

    nfe_spent: int = 0
    nfe_budget: int
    level: int = 0
    levels: int
    best_reward: float | None = None
    baseline_nfe_spent: int = Field(default=0, description="by the baseline, which is no part of nfe_budget")

    @property
    def spent(self) -> int:
        """NFE of the search and of its baseline."""
        return self.nfe_spent + self.baseline_nfe_spent


class Checkpoint(Document):
    """The newest state that another execution can go on from, see `contracts.keys.checkpoint_path`.

    `nfe` counts the baseline's too.
    """

    attempt: int
    nfe: int


class Parent(Document):
    """The generation that this one goes on from."""

    id: str
    nfe: int = Field(description="evaluations made before this one, by its parent and that one's parents")


class ProgressView(Progress):
    """Progress as clients see it."""

    fraction: float = Field(
        description="of the NFE budget and the baseline's, 0 to 1; 1 once ended with success"
    )
    queue_position: int | None = Field(description="generations ahead in the queue; null once started")
    eta_seconds: float | None = Field(description="at the rate so far; null where there is none yet")


class Image(Document):
    """One final image."""

    url: str
    width: int
    height: int
    sha256: str = Field(description="of the file's bytes, hexadecimal")
    reward: float
    rewards: dict[str, float]
    held_out: dict[str, float]
    seed: int
    chain: int
    nfe: int | None = Field(default=None, description="the evaluation that made it (`candidate` events)")


class LevelRecord(Document):
    """What one chain did at one level."""

    chain: int
    level: int
    t: float
    reward: float
    best_reward: float
    draws: int
    quota: int | None = None
    carried: int | None = None


class Provenance(Document):
    """What is needed to repeat the job to the same bytes on the same kind of machine."""

    model: str
    weights_sha256: str
    rewards: dict[str, str] = Field(description="version of each reward used, held-out ones included")
    libraries: dict[str, str]
    device: str
    seed: int
    mode: str | None = None


class Baseline(Document):
    """What best-of-n found with the NFE that the search spent: as many whole runs, and at least one."""

    strategy: Literal["best_of_n"] = "best_of_n"
    steps: int = Field(description="NFE of each run")
    nfe_spent: int
    stopped_by: StopReason
    image: Image = Field(description="its `chain` and `nfe` count the baseline's own runs and NFE")


class Result(Document):
    """What a search found; one that was canceled or failed has the best so far, if it had any."""

    images: list[Image] = Field(description="best first")
    first_reward: float = Field(
        description="before any search: the reward of the first candidate, which `rbf` predicts in one step"
    )
    levels: list[LevelRecord]
    stopped_by: StopReason = Field(
        description="`finished`: no use for the rest of the budget; `error`: see the job's `error`"
    )
    provenance: Provenance
    baseline: Baseline | None = Field(
        default=None, description="null: not asked for, or ended before its first run was"
    )


class Seconds(Document):
    """Where the time went."""

    queued: float = 0.0
    load: float = 0.0
    model: float = 0.0
    decode: float = 0.0
    reward: float = 0.0
    gradient: float = 0.0
    total: float = 0.0


class Spent(Document):
    """What a search spent. Of one whose last execution vanished only the NFE are known: the rest is 0."""

    nfe_spent: int = Field(description="together with `nfe_unspent` the whole budget")
    nfe_unspent: int | None = Field(
        default=None, description="what the budget had left at the end; null: ended before this was told"
    )
    unspent_reason: str | None = Field(
        default=None, description="why it had; null: it had nothing left, or that is not known"
    )
    nfe_unused: int = Field(default=0, description="of those spent, evaluations that no decision used")
    nfe_redone: int = 0
    model_forwards: int = 0
    reward_calls: int = 0
    decodes: int = 0
    gradients: int = Field(
        default=0, description="rewards whose gradient guided: as many passes back through reward and decoder"
    )
    seconds: Seconds = Seconds()


def spent_of(request: ResolvedRequest, nfe: int, stop: ByLimit) -> Spent:
    """What is known of a search that was stopped after so many NFE."""
    left = request.budget.nfe - nfe
    reason = why_unspent(stop, request.budget) if left else None
    return Spent(nfe_spent=nfe, nfe_unspent=left, unspent_reason=reason)


class Usage(Spent):
    """What a job spent: its search and, apart from it, its baseline."""

    baseline: Spent | None = None


class JobError(Document):
    """Why a job failed."""

    code: JobErrorCode
    title: str
    detail: str


class Urls(Document):
    """Where to go next, relative to the server."""

    get: str
    events: str
    trace: str
    cancel: str
    extend: str


class Generation(Document):
    """The job document."""

    id: str
    object: Literal["generation"] = "generation"
    status: Status
    status_sequence: int = Field(description="grows with every change of the job")
    parent: Parent | None = Field(description="null: a search of its own")
    progress: ProgressView
    request: ResolvedRequest
    result: Result | None
    usage: Usage | None
    error: JobError | None
    webhook: Delivery | None = Field(
        description="delivery of the webhook; null until there is one to deliver"
    )
    attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None = Field(
        description="when it is removed with all that belongs to it; null until it ends, or where it is kept"
    )
    urls: Urls


class GenerationList(Document):
    """A page of generations, newest first."""

    object: Literal["list"] = "list"
    data: list[Generation]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end")


class Record(Document):
    """A job as its Redis hash holds it: one field of text for each attribute here."""

    id: str
    request: ResolvedRequest
    status: Status = Status.QUEUED
    status_sequence: int = 0
    events: int = Field(default=0, description="sequence number of the last event")
    attempts: int = 0
    lost: int = Field(default=0, description="executions in a row that vanished and got no further")
    writer: str | None = Field(default=None, description="the execution that wrote last")
    writes: int = Field(default=0, description="number of its latest write")
    parent: Parent | None = None
    progress: Progress
    checkpoint: Checkpoint | None = None
    result: Result | None = None
    usage: Usage | None = None
    error: JobError | None = None
    delivery: Delivery | None = Field(default=None, description="of its webhook, from the job's end on")
    cancel_requested: bool = False
    idempotency_key: str | None = None
    owner: str | None = Field(default=None, description="id of the API key that submitted it")
    request_id: str | None = Field(default=None, description="of the HTTP request that submitted it")
    traceparent: str | None = Field(default=None, description="of that request, where it is traced")
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @classmethod
    def new(
        cls, request: ResolvedRequest, idempotency_key: str | None = None, owner: str | None = None
    ) -> Self:
        """Return the record of a job submitted now."""
        return cls(
            id=new_id(),
            request=request,
            progress=Progress(nfe_budget=request.budget.nfe, levels=request.sampler.steps),
            idempotency_key=idempotency_key,
            owner=owner,
            created_at=now(),
        )

    @property
    def nfe_before(self) -> int:
        """Evaluations made by the generations that this one goes on from."""
        return self.parent.nfe if self.parent else 0

    def extending(self, parent: Self) -> Self:
        """Return this record as one that goes on from another's checkpoint, of which it has a copy."""
        assert parent.checkpoint is not None  # noqa: S101 (nothing else can be extended)
        nfe = parent.checkpoint.nfe
        update = {"parent": Parent(id=parent.id, nfe=nfe), "checkpoint": Checkpoint(attempt=0, nfe=nfe)}
        return self.model_copy(update=update)

    @property
    def losses(self) -> int:
        """How many executions in a row have vanished without getting any further, the present one included.

        One that got as far as a checkpoint of its own begins the count anew: it is the victim of its
        surroundings, where a job that kills every worker at the same place must end.
        """
        progressed = self.checkpoint is not None and self.checkpoint.attempt == self.attempts
        return (0 if progressed else self.lost) + (self.status is Status.RUNNING)

    def usage_so_far(self, stop: ByLimit) -> Usage | None:
        """What its progress says it spent, for an end that no execution can tell of; None: nothing.

        Where its baseline had begun, the search had ended before: of why, nothing is known here.
        """
        spent, compared = self.progress.nfe_spent, self.progress.baseline_nfe_spent
        if not self.progress.spent:
            return None
        search = spent_of(self.request, spent, stop)
        waited = ((self.started_at or self.created_at) - self.created_at).total_seconds()
        return Usage(
            nfe_spent=spent,
            nfe_unspent=search.nfe_unspent,
            unspent_reason=None if compared else search.unspent_reason,
            seconds=Seconds(queued=max(waited, 0.0)),
            baseline=spent_of(baseline_of(self.request, spent), compared, stop) if compared else None,
        )

    def expires_at(self, keep: timedelta | None) -> datetime | None:
        """When a job is removed that is kept for so long after its end; None: not yet known, or never."""
        if keep is None or self.completed_at is None:
            return None
        return self.completed_at + keep

    @classmethod
    def from_hash(cls, fields: Mapping[str, str], extra: Literal["forbid", "ignore"] = "forbid") -> Self:
        """Read a Redis hash.

        Args:
            fields: of the hash.
            extra: whether what only a later version knows is ignored. Whoever shows a job may ignore it;
                whoever runs one must not, it would be another job.

        Raises:
            ValidationError: they are no record, or hold fields that are not known.
        """
        values = {name: decoded(name, text) for name, text in fields.items()}
        return cls.model_validate(values, extra=extra)

    def to_hash(self) -> dict[str, str]:
        """Write a Redis hash; attributes that are null have no field."""
        return hash_fields(**{name: getattr(self, name) for name in type(self).model_fields})


STRUCTURED = {"request", "parent", "progress", "checkpoint", "result", "usage", "error", "delivery"}


def hash_fields(**values: object) -> dict[str, str]:
    """Encode attributes of a `Record` as fields of its hash; null ones are left out.

    Example: `hash_fields(progress=progress, started_at=now())`.

    Raises:
        ValueError: for a name that `Record` does not have.
    """
    unknown = values.keys() - Record.model_fields.keys()
    if unknown:
        raise ValueError(f"Record has no attribute {sorted(unknown)}")
    return {name: encoded(value) for name, value in values.items() if value is not None}


def encoded(value: object) -> str:
    """Encode one attribute as text."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


def decoded(name: str, text: str) -> object:
    """Decode one field of a hash as far as pydantic cannot do itself."""
    return JSON.validate_json(text) if name in STRUCTURED else text


JSON: TypeAdapter[object] = TypeAdapter(object)


def new_id() -> str:
    """Return an id that sorts by time (48 bits of milliseconds) and cannot be guessed (80 random bits)."""
    return id_at(time.time(), secrets.randbits(80))


def id_at(seconds: float, bits: int = 0) -> str:
    """Return the id made at a time (seconds since 1970) with 80 random bits; without them, the least one."""
    number = (int(seconds * 1000) << 80) | bits
    return "gen_" + "".join(CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def document(
    record: Record,
    queue_position: int | None = None,
    at: datetime | None = None,
    keep: timedelta | None = None,
) -> Generation:
    """Build the job document from its record.

    Args:
        record: the job as stored.
        queue_position: generations ahead of it; ignored unless it is queued.
        at: the present, for the expected time; default now.
        keep: for how long ended jobs are kept; None: until they are deleted.
    """
    return Generation(
        id=record.id,
        status=record.status,
        status_sequence=record.status_sequence,
        parent=record.parent,
        progress=view(record, queue_position, at or now()),
        request=record.request,
        result=record.result,
        usage=record.usage,
        error=record.error,
        webhook=record.delivery,
        attempts=record.attempts,
        cancel_requested=record.cancel_requested,
        created_at=record.created_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        expires_at=record.expires_at(keep),
        urls=Urls(
            get=generation_url(record.id),
            events=events_url(record.id),
            trace=trace_url(record.id),
            cancel=cancel_url(record.id),
            extend=extend_url(record.id),
        ),
    )


def view(record: Record, queue_position: int | None, at: datetime) -> ProgressView:
    """Add to the stored progress what depends on the queue and on the clock."""
    stored = record.progress
    done = record.status is Status.SUCCEEDED
    return ProgressView(
        **stored.model_dump(),
        fraction=1.0 if done else stored.spent / reserved_nfe(record.request),
        queue_position=queue_position if record.status is Status.QUEUED else None,
        eta_seconds=eta(record, at),
    )


def eta(record: Record, at: datetime) -> float | None:
    """Seconds left of a running job at its mean rate so far."""
    spent = record.progress.spent
    if record.status is not Status.RUNNING or record.started_at is None or spent == 0:
        return None
    elapsed = max((at - record.started_at).total_seconds(), 0.0)
    return round(elapsed * (reserved_nfe(record.request) - spent) / spent, 1)
