"""Weights and systematic resampling, by themselves."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.strategies.resampling import effective_size, log_mean, normalized, systematic

log_weights = st.lists(st.floats(-800, 800), min_size=1, max_size=12)


@settings(deadline=None)
@given(log_weights=log_weights)
def test_weights_of_any_size_are_normalized(log_weights: list[float]) -> None:
    weights = normalized(log_weights)
    assert math.fsum(weights) == pytest.approx(1)
    assert 1 - 1e-9 <= effective_size(weights) <= len(weights) + 1e-9
    assert min(log_weights) - 1e-9 <= log_mean(log_weights) <= max(log_weights) + 1e-9


def test_equal_weights_are_worth_their_number() -> None:
    assert effective_size(normalized([-1000.0] * 7)) == pytest.approx(7)
    assert log_mean([-1000.0] * 7) == pytest.approx(-1000)
    assert effective_size([1.0, 0.0, 0.0]) == 1


@settings(deadline=None)
@given(log_weights=log_weights, count=st.integers(1, 20), u=st.floats(0, 1, exclude_max=True))
def test_each_is_chosen_as_often_as_its_weight_says(log_weights: list[float], count: int, u: float) -> None:
    weights = normalized(log_weights)
    chosen = systematic(weights, count, u)
    assert chosen == sorted(chosen)
    assert len(chosen) == count
    times = Counter(chosen)
    assert all(abs(times[i] - count * weight) < 1 + 1e-6 for i, weight in enumerate(weights))


@settings(deadline=None)
@given(log_weights=st.lists(st.floats(-3, 3), min_size=1, max_size=6), count=st.integers(1, 6))
def test_resampling_is_unbiased(log_weights: list[float], count: int) -> None:
    """Averaged over u, copies are count x weight; a grid of u integrates these step functions to 1 / grid."""
    weights = normalized(log_weights)
    grid = 400
    copies = Counter(i for j in range(grid) for i in systematic(weights, count, (j + 0.5) / grid))
    for i, weight in enumerate(weights):
        assert copies[i] / grid == pytest.approx(count * weight, abs=2 / grid)


def test_equal_weights_keep_every_one() -> None:
    for u in (1e-9, 0.25, 0.999):
        assert systematic([1 / 7] * 7, 7, u) == list(range(7))
