"""Where on [1, 0] the levels lie. Both grids have steps + 1 times, the first 1 and the last 0."""

import math
from collections.abc import Callable

Grid = Callable[[int], tuple[float, ...]]


def quadratic(steps: int) -> tuple[float, ...]:
    """The paper's grid: r = sqrt(1 - (1 - k)^2), k uniform from 1 to 0. Dense where the noise is."""
    return tuple(math.sqrt(1 - (i / steps) ** 2) for i in range(steps + 1))


def linear(steps: int) -> tuple[float, ...]:
    """Uniform times."""
    return tuple(1 - i / steps for i in range(steps + 1))


GRIDS: dict[str, Grid] = {"quadratic": quadratic, "linear": linear}
