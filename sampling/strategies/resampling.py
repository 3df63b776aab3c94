"""Weights in log space, and the choice of survivors by them."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def log_mean(log_weights: Sequence[float]) -> float:
    """The log of the mean weight."""
    top = max(log_weights)
    return top + math.log(math.fsum(math.exp(w - top) for w in log_weights) / len(log_weights))


def normalized(log_weights: Sequence[float]) -> list[float]:
    """The weights, scaled to sum to 1."""
    top = max(log_weights)
    weights = [math.exp(w - top) for w in log_weights]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def effective_size(weights: Sequence[float]) -> float:
    """ESS, 1 / sum of squares: how many equal weights these are worth, from 1 to their number."""
    return 1 / math.fsum(weight * weight for weight in weights)


def systematic(weights: Sequence[float], count: int, u: float) -> list[int]:
    """``count`` indices in ascending order, i expected count x weights[i] times, off by less than one.

    One uniform number u in [0, 1) sets a comb of ``count`` equidistant teeth on the cumulated weights; with
    count = 1 this is a plain draw.

    Args:
        weights: not negative, with sum 1.
        count: at least 1.
        u: in [0, 1).
    """
    edges = list(accumulate(weights))
    # Rounding may leave the last tooth beyond the last edge.
    return [min(bisect_right(edges, (u + i) / count * edges[-1]), len(edges) - 1) for i in range(count)]
