"""The trace of a search: every candidate it evaluated, as JSON, JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from app.services import Services
from contracts.jobs import Record
from contracts.keys import trace_path

COLUMNS = (
    "seq",
    "nfe",
    "chain",
    "level",
    "t",
    "t_next",
    "draw",
    "parent",
    "reward",
    "best_reward",
    "decision",
    "quota",
    "carried",
)


class TraceFormat(StrEnum):
    """How to write a trace."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


MEDIA_TYPES = {
    TraceFormat.JSON: "application/json",
    TraceFormat.JSONL: "application/jsonl",
    TraceFormat.CSV: "text/csv",
}
ACCEPTED = {
    "application/json": TraceFormat.JSON,
    "application/jsonl": TraceFormat.JSONL,
    "application/x-ndjson": TraceFormat.JSONL,
    "text/csv": TraceFormat.CSV,
}


def negotiated(accept: str) -> TraceFormat:
    """Return the format an `Accept` header likes best; JSON where it names none of ours."""
    best, best_quality = TraceFormat.JSON, 0.0
    for item in accept.split(","):
        name, *params = (part.strip().lower() for part in item.split(";"))
        quality = quality_of(params)
        if name in ACCEPTED and quality > best_quality:
            best, best_quality = ACCEPTED[name], quality
    return best


def quality_of(params: Sequence[str]) -> float:
    """Read the `q` of one item of an `Accept` header; 0 where it is no number."""
    for param in params:
        if param.startswith("q="):
            try:
                return float(param[2:])
            except ValueError:
                return 0.0
    return 1.0


async def lines(services: Services, record: Record) -> list[str]:
    """Return the candidates of a job as JSON objects, one each, in the order of evaluation.

    An ended job's come from its artifact; until then, and where it has none, from its events.
    """
    if record.status.final:
        stored = await services.artifacts.read(trace_path(record.id))
        if stored is not None:
            return stored.decode().splitlines()
    return [entry.text for entry in await services.store.events(record.id) if entry.type == "candidate"]


def written(candidates: Sequence[str], record: Record, how: TraceFormat) -> bytes:
    """Write a trace in one of its formats."""
    if how is TraceFormat.JSONL:
        return "".join(f"{line}\n" for line in candidates).encode()
    if how is TraceFormat.CSV:
        return as_csv([json.loads(line) for line in candidates], reward_names(record)).encode()
    head = json.dumps({"object": "trace", "generation": record.id, "status": record.status})
    return f'{head[:-1]}, "candidates": [{", ".join(candidates)}]}}'.encode()


def reward_names(record: Record) -> list[str]:
    """Name the rewards that steer a job."""
    return [term.name for term in record.request.reward]


def as_csv(candidates: Sequence[dict[str, Any]], rewards: Sequence[str]) -> str:
    """Write one row for each candidate, with a column `rewards.<name>` for each reward."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"rewards.{name}" for name in rewards)])
    for candidate in candidates:
        parts = candidate["rewards"]
        writer.writerow([*(candidate.get(name) for name in COLUMNS), *(parts.get(name) for name in rewards)])
    return text.getvalue()
