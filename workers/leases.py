"""Which running jobs have lost their worker: told by silence, not by what any clock says.

RQ gives each execution a time at which it expires, by the clock of its worker's machine, and compares it with
the clock of whoever looks. A clock that is set, or two that differ, would have the jobs of live workers taken
over and those of dead ones forgotten for as long as the clock was set back. So what is looked at here is
whether a worker's sign of life changes, and for how long by our own monotonic clock it has not.
"""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry

from contracts.turns import GIVE_BACK_SCRIPT, line_keys

SILENCE = 4.5
"""Seconds without a sign of life after which a worker has lost its job: more than four beats."""
GAP = 3.0
"""Seconds between two looks after which the watch begins anew: Redis was away from the living, too."""
EXPIRED = 0.0
"""The score of an execution that may be taken over; a worker that lives after all puts its own back."""


class Sign(NamedTuple):
    """A sign of life: what it says (None: only a name is left), and when that was new by our clock."""

    text: bytes | None
    since: float


@dataclass
class Leases:
    """Watches the executions of one queue.

    Args:
        queue: whose jobs to watch.
        clock: seconds that only go forward.
        seen: the last sign of each execution.
        looked: when that was, by the clock.
    """

    queue: Queue
    clock: Callable[[], float] = time.monotonic
    seen: dict[str, Sign] = field(default_factory=dict[str, Sign])
    looked: float = -math.inf

    @property
    def registry(self) -> StartedJobRegistry:
        """RQ's list of what runs."""
        return StartedJobRegistry(queue=self.queue, job_class=self.queue.job_class)

    def look(self) -> None:
        """Note what has changed. To be called more often than `GAP`."""
        present = self.clock()
        before = self.seen if present - self.looked <= GAP else {}
        fresh: dict[str, Sign] = {}
        for name, text in self._signs().items():
            known = before.get(name)
            # What is gone has expired, as it does where nobody beats: that is no news of a life.
            fresh[name] = known if known and text in {None, known.text} else Sign(text, present)
        self.seen, self.looked = fresh, present

    @property
    def silent(self) -> list[str]:
        """The executions whose workers are taken for dead, as of the last look."""
        return [name for name, sign in self.seen.items() if self.looked - sign.since >= SILENCE]

    def take_over(self, silent: list[str], handlers: list[Any]) -> None:
        """Have RQ see to the jobs whose workers are silent, and to no others.

        Args:
            silent: their executions.
            handlers: RQ's, called for each of these jobs.
        """
        for name in silent:
            self.queue.connection.zadd(self.registry.key, {name: EXPIRED}, xx=True)
        self.registry.cleanup(timestamp=EXPIRED, exception_handlers=handlers)

    def alone(self, job_id: str, names: Collection[str]) -> bool:
        """Whether one of these executions is listed for a job, and no other is."""
        listed = [name for name in self._names() if name.startswith(f"{job_id}:")]
        return len(listed) == 1 and listed[0] in names

    def leave(
        self, job: Job, execution: Execution, model: str, pipeline: Pipeline, turn: tuple[str, float] | None
    ) -> None:
        """Take an execution off the list, and see in the same step that its job is not lost with it.

        Args:
            job: it is next, unless it is somebody's already.
            execution: of the job.
            model: whose line the job is of.
            pipeline: takes the command.
            turn: `turn_of` the job, where others are to go first.
        """
        line = line_keys(self.queue.key, model)
        keys = [*line, self.queue.intermediate_queue_key, self.registry.key, job.key]
        pipeline.eval(GIVE_BACK_SCRIPT, len(keys), *keys, job.id, execution.composite_key, *(turn or ()))

    def _names(self) -> list[str]:
        """The executions that are listed now."""
        members = cast("list[bytes]", self.queue.connection.zrange(self.registry.key, 0, -1))
        return [member.decode() for member in members]

    def _signs(self) -> dict[str, bytes | None]:
        """What each execution says now."""
        names = self._names()
        with self.queue.connection.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(Execution.from_composite_key(name, self.queue.connection).key, "last_heartbeat")
            return dict(zip(names, pipeline.execute(), strict=True))
