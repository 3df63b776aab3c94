"""What a worker says of itself while it lives."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class WorkerState(StrEnum):
    """What a worker is doing."""

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    BUSY = "busy"

    @classmethod
    def _missing_(cls, value: object) -> "WorkerState":
        """What only a later version's worker says of itself is not known to mean that it takes jobs."""
        del value
        return cls.LOADING

    @property
    def serving(self) -> bool:
        """Whether it takes jobs."""
        return self in (WorkerState.READY, WorkerState.BUSY)


class WorkerBeat(BaseModel):
    """A worker's heartbeat, stored for `WORKER_TTL_SECONDS` at a time."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    state: WorkerState
    pid: int
    host: str
