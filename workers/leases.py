"""Which running jobs have lost their worker: told by silence, not by what any clock says.

RQ gives each execution a time at which it expires, by the clock of its worker's machine, and compares it with
the clock of whoever looks. A clock that is set, or two that differ, would have the jobs of live workers taken
over and those of dead ones forgotten for as long as the clock was set back. So what is looked at here is
whether a worker's sign of life changes, and for how long by our own monotonic clock it has not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from rq import Queue
from rq.executions import Execution
from rq.registry import StartedJobRegistry

SILENCE = 4.5
"""Seconds without a sign of life after which a worker has lost its job: three beats."""
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
        for name, sign in self._signs().items():
            known = before.get(name)
            fresh[name] = known if known and known.text == sign else Sign(sign, present)
        self.seen, self.looked = fresh, present

    def take_over(self, handlers: list[Any]) -> None:
        """Have RQ see to the jobs whose workers are silent, and to no others.

        Args:
            handlers: RQ's, called for each of these jobs.
        """
        self.look()
        for name, sign in self.seen.items():
            if self.clock() - sign.since >= SILENCE:
                self.queue.connection.zadd(self.registry.key, {name: EXPIRED}, xx=True)
        self.registry.cleanup(timestamp=EXPIRED, exception_handlers=handlers)

    def _signs(self) -> dict[str, bytes | None]:
        """What each execution says now."""
        members = cast("list[bytes]", self.queue.connection.zrange(self.registry.key, 0, -1))
        names = [member.decode() for member in members]
        with self.queue.connection.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(Execution.from_composite_key(name, self.queue.connection).key, "last_heartbeat")
            return dict(zip(names, pipeline.execute(), strict=True))
