"""What a worker says of itself while it lives."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class WorkerState(StrEnum):
    """What a worker is doing."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"


class WorkerBeat(BaseModel):
    """A worker's heartbeat, stored for `WORKER_TTL_SECONDS` at a time."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    state: WorkerState
    pid: int
    host: str
