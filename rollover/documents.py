"""The documents a Rollover server answers with, as typed records.

Fields a newer server adds are kept in ``raw`` and otherwise ignored, so that an old client goes on working.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled"})
FINAL_EVENTS = frozenset({"completed", "failed", "canceled"})


@dataclass(frozen=True)
class Progress:
    """How far a search is: NFE spent of the budget, levels reached and the best reward so far."""

    nfe_spent: int
    nfe_budget: int
    level: int | None
    levels: int | None
    best_reward: float | None
    queue_position: int | None
    eta_seconds: float | None


@dataclass(frozen=True)
class ResultImage:
    """One image of a result. ``reward`` is what steered the search; ``held_out`` never did."""

    url: str
    width: int
    height: int
    sha256: str
    reward: float
    rewards: Mapping[str, float]
    held_out: Mapping[str, float]


@dataclass(frozen=True)
class Baseline:
    """What best-of-n found with as many NFE as the search spent."""

    image: ResultImage
    nfe_spent: int
    steps: int


@dataclass(frozen=True)
class Result:
    """What a search returned; ``first_reward`` is the reward before any search."""

    images: tuple[ResultImage, ...]
    first_reward: float | None
    baseline: Baseline | None
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class JobError:
    """Why a job failed, with the server's stable code."""

    code: str
    title: str
    detail: str


@dataclass(frozen=True)
class Parent:
    """The job that another goes on from, and the NFE spent before it."""

    id: str
    nfe: int


@dataclass(frozen=True)
class Generation:
    """A job document. ``raw`` is the whole of it, as the server sent it."""

    id: str
    status: Status
    parent: Parent | None
    progress: Progress
    result: Result | None
    error: JobError | None
    usage: Mapping[str, Any]
    request: Mapping[str, Any]
    raw: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True)
class Event:
    """One event of a job's stream. ``seq`` counts from 1 without gaps; ``data`` is the event as sent."""

    seq: int
    type: str
    data: Mapping[str, Any]

    @property
    def final(self) -> bool:
        """Whether no event follows this one."""
        return self.type in FINAL_EVENTS


@dataclass(frozen=True)
class Page:
    """One page of jobs, newest first; ``next`` is the cursor of the following page."""

    items: tuple[Generation, ...]
    next: str | None


def generation(raw: Mapping[str, Any]) -> Generation:
    """Read a job document."""
    return Generation(
        id=raw["id"],
        status=raw["status"],
        parent=_parent(raw.get("parent")),
        progress=_progress(raw.get("progress") or {}),
        result=_result(raw.get("result")),
        error=_error(raw.get("error")),
        usage=raw.get("usage") or {},
        request=raw.get("request") or {},
        raw=raw,
    )


def _parent(raw: Mapping[str, Any] | None) -> Parent | None:
    return None if raw is None else Parent(raw["id"], raw["nfe"])


def _progress(raw: Mapping[str, Any]) -> Progress:
    return Progress(
        nfe_spent=raw.get("nfe_spent") or 0,
        nfe_budget=raw.get("nfe_budget") or 0,
        level=raw.get("level"),
        levels=raw.get("levels"),
        best_reward=raw.get("best_reward"),
        queue_position=raw.get("queue_position"),
        eta_seconds=raw.get("eta_seconds"),
    )


def _result(raw: Mapping[str, Any] | None) -> Result | None:
    if raw is None:
        return None
    images: Sequence[Mapping[str, Any]] = raw.get("images") or []
    baseline = _baseline(raw.get("baseline"))
    return Result(tuple(_image(image) for image in images), raw.get("first_reward"), baseline, raw)


def _baseline(raw: Mapping[str, Any] | None) -> Baseline | None:
    if raw is None:
        return None
    return Baseline(_image(raw["image"]), raw["nfe_spent"], raw["steps"])


def _image(raw: Mapping[str, Any]) -> ResultImage:
    return ResultImage(
        url=raw["url"],
        width=raw["width"],
        height=raw["height"],
        sha256=raw["sha256"],
        reward=raw["reward"],
        rewards=raw.get("rewards") or {},
        held_out=raw.get("held_out") or {},
    )


def _error(raw: Mapping[str, Any] | None) -> JobError | None:
    if raw is None:
        return None
    return JobError(raw["code"], raw.get("title") or "", raw.get("detail") or "")
