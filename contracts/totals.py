"""What a model's workers have done since the store was made, for Prometheus to take differences of.

What jobs add is added by the step that ends a job (`contracts.transitions`), so once whatever is killed.
What belongs to no job, workers add as it happens.
"""

from collections.abc import Mapping
from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field

from contracts.jobs import FINAL_STATUSES, Seconds

WAIT_BOUNDS = (1, 5, 15, 60, 300, 900, 3600, 14400)
"""Upper bounds, in seconds, of the classes in which waits are counted; beyond the last there is one more."""
PARTS = tuple(name for name in Seconds.model_fields if name not in {"queued", "total"})
"""What the time of a search goes to."""


class Totals(BaseModel):
    """Sums over the ended jobs of a model, and over its workers' lives."""

    model_config = ConfigDict(frozen=True)

    jobs: dict[str, int] = Field(description="by final status")
    waits: tuple[int, ...] = Field(description="jobs that waited up to each of WAIT_BOUNDS, and all")
    wait_seconds: float
    seconds: dict[str, float] = Field(description="by what they went to")
    nfe: int
    nfe_redone: int
    engine_restarts: int
    halvings: int = Field(description="of the rows in a call, because memory ran out")

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> "Totals":
        """Read a Redis hash; what it does not have is 0."""

        def count(name: str) -> int:
            return int(fields.get(name, 0))

        def amount(name: str) -> float:
            return float(fields.get(name, 0.0))

        classes = (count(f"waits:{index}") for index in range(1, len(WAIT_BOUNDS) + 2))
        return cls(
            jobs={status.value: count(f"jobs:{status.value}") for status in FINAL_STATUSES},
            waits=tuple(accumulate(classes)),
            wait_seconds=amount("wait_seconds"),
            seconds={part: amount(f"seconds:{part}") for part in PARTS},
            nfe=count("nfe"),
            nfe_redone=count("nfe_redone"),
            engine_restarts=count("engine_restarts"),
            halvings=count("halvings"),
        )
