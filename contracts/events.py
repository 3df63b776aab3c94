"""The events of a job: one stream each, `seq` from 1 without gaps, told apart by `type`."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from contracts.jobs import JobError, now

EVENT_FIELD = "event"
"""The one field of a stream entry; its id is `{seq}-0`."""


class Decision(StrEnum):
    """What the search did with a candidate."""

    INITIAL = "initial"
    IMPROVED = "improved"
    LEVEL_BEST = "level_best"
    KEPT = "kept"
    REJECTED = "rejected"
    UNUSED = "unused"


class BaseEvent(BaseModel):
    """What all events share."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    seq: int = Field(default=0, ge=0, description="given by the stream when it is published; 0 until then")
    at: datetime = Field(default_factory=now)


class Queued(BaseEvent):
    """The job was accepted."""

    type: Literal["queued"] = "queued"


class Started(BaseEvent):
    """A worker began the job, for the `attempt`-th time."""

    type: Literal["started"] = "started"
    attempt: int
    worker: str


class CandidateEvent(BaseEvent):
    """One latent was evaluated: one NFE.

    `t` is where its prediction was made and `t_next` where its children are drawn (1 noise, 0 data);
    `parent` is the `nfe` of the candidate it was drawn from.
    """

    type: Literal["candidate"] = "candidate"
    nfe: int
    chain: int
    level: int
    t: float
    t_next: float | None = None
    draw: int
    parent: int | None = None
    reward: float
    rewards: dict[str, float]
    best_reward: float
    decision: Decision
    quota: int | None = None
    carried: int | None = None


class LevelEvent(BaseEvent):
    """A chain left a level with the candidate it moves to."""

    type: Literal["level"] = "level"
    chain: int
    level: int
    t: float
    reward: float
    best_reward: float
    draws: int
    quota: int | None = None
    carried: int | None = None
    preview_url: str | None = None


class Resumed(BaseEvent):
    """A search, or the baseline of one that has ended, goes on from a checkpoint."""

    type: Literal["resumed"] = "resumed"
    from_nfe: int
    nfe_redone: int
    baseline_nfe_redone: int = 0


class BaselineEvent(BaseEvent):
    """The search has ended by itself; its baseline now runs, at most so many NFE, and tells no candidates."""

    type: Literal["baseline"] = "baseline"
    strategy: Literal["best_of_n"] = "best_of_n"
    nfe: int


class Completed(BaseEvent):
    """The search ended; the job document has the result."""

    type: Literal["completed"] = "completed"
    nfe_spent: int
    best_reward: float


class Failed(BaseEvent):
    """The job failed."""

    type: Literal["failed"] = "failed"
    error: JobError


class Canceled(BaseEvent):
    """The job was canceled; a search that had begun keeps its best so far."""

    type: Literal["canceled"] = "canceled"
    nfe_spent: int
    best_reward: float | None = None


Event = Annotated[
    Queued | Started | CandidateEvent | LevelEvent | Resumed | BaselineEvent | Completed | Failed | Canceled,
    Field(discriminator="type"),
]
FINAL_EVENTS = ("completed", "failed", "canceled")

EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def encode(event: Event) -> str:
    """Write an event as JSON without `seq`, which `WRITE_SCRIPT` puts in when it appends it."""
    return event.model_dump_json(exclude={"seq"})


def decode(text: str | bytes) -> Event:
    """Read a published event."""
    return EVENT.validate_json(text)
