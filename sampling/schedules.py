"""The model's own pace: the times of the linear path at which its own pipeline asks it."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sampling.grids import linear

# steps, at least 1 -> the steps + 1 times that a run of so many steps visits, from 1 down to 0
Schedule = Callable[[int], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How far down the linear path a part k of the way is: t(k), for k from 1 (noise) to 0 (data).

    t goes through the times of a schedule at even k, and straight between them.

    Args:
        times: of a schedule, each lower than the one before.
    """

    times: tuple[float, ...]

    def time_at(self, k: float) -> float:
        """The t of a k in [0, 1]."""
        return self._through(k, linear(self.steps), self.times)

    def part_at(self, t: float) -> float:
        """The k of a t in [0, 1]."""
        return self._through(t, self.times, linear(self.steps))

    @property
    def steps(self) -> int:
        """Of the schedule."""
        return len(self.times) - 1

    def _through(self, at: float, here: Sequence[float], there: Sequence[float]) -> float:
        # Of an even schedule t is k, to the last bit: interpolation would round.
        if self.times == linear(self.steps):
            return at
        above = bisect_right(here, -at, lo=1, hi=self.steps, key=lambda value: -value) - 1
        share = (here[above] - at) / (here[above] - here[above + 1])
        return there[above] - share * (there[above] - there[above + 1])


def paced(pace: Pace, start: float, end: float, steps: int) -> tuple[float, ...]:
    """The times of ``steps`` even steps in k from ``start`` down to ``end``, which is left out."""
    first, last = pace.part_at(start), pace.part_at(end)
    return (start, *(pace.time_at(first - (first - last) * i / steps) for i in range(1, steps)))
