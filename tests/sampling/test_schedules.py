"""The model's own pace: where it is even nothing changes, elsewhere every walk of its own path keeps it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampling.grids import linear
from sampling.interpolants import LINEAR, VP
from sampling.noise import AddressedNoise
from sampling.problem import Problem
from sampling.schedules import Pace
from sampling.strategies import approach, generations
from sampling.strategies.finish import finish_times
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, problem, rounds

PATHS = {"linear": LINEAR, "vp": VP}
paths = pytest.mark.parametrize("path", PATHS)
times = st.floats(0.05, 0.95)
counts = st.integers(1, 12)


def shifted(steps: int) -> tuple[float, ...]:
    """FLUX.1-dev's times at 1024 x 1024 pixels: t = a k / (1 + (a - 1) k)."""
    return tuple(3.16 * k / (1 + 2.16 * k) for k in linear(steps))


def on(path: str, **given: Any) -> Problem:  # noqa: ANN401
    sampler = {"steps": 10, "interpolant": path, "grid": "linear" if path == "linear" else "quadratic"}
    return problem(30, sampler=sampler, **given)


def on_linear(path: str, r: float) -> float:
    return LINEAR.time_at_ratio(PATHS[path].at(r).ratio)


@paths
@given(r=times, steps=counts)
def test_an_even_schedule_changes_no_bit_of_finish_and_approach(path: str, r: float, steps: int) -> None:
    """What their times were before schedules, restated."""
    t, start = on_linear(path, r), on_linear(path, 1.0)
    finish = [t * (1 - i / (steps + 1)) for i in range(1, steps + 1)]
    down = [start - (start - t) * i / steps for i in range(1, steps)]

    def back(t: float) -> float:
        return PATHS[path].time_at_ratio(LINEAR.at(t).ratio)

    assert finish_times(on(path), r, steps) == tuple(map(back, finish))
    assert approach.visits(on(path), r, steps) == (1.0, *map(back, down))


@given(start=times, part=times, steps=counts)
def test_an_even_schedule_changes_no_bit_of_a_solve(start: float, part: float, steps: int) -> None:
    for top, end in ((start, start * part), (start, 0.0), (1.0, start), (1.0, 0.0)):
        before = tuple(top - (top - end) * i / steps for i in range(steps))
        assert generations.visits(on("linear"), top, end, steps) == before


@given(k=st.floats(0, 1), steps=counts)
def test_a_pace_goes_through_its_times_and_back(k: float, steps: int) -> None:
    pace = Pace(shifted(steps))
    assert [pace.time_at(i) for i in linear(steps)] == pytest.approx(pace.times)
    assert pace.part_at(pace.time_at(k)) == pytest.approx(k, abs=1e-12)


@pytest.mark.parametrize("steps", [4, 10])
@pytest.mark.parametrize("name", ["base", "best_of_n", "zero_order"])
def test_a_whole_run_visits_the_models_own_times(name: str, steps: int) -> None:
    made = on("vp", seed=3, schedule=shifted)
    first, *_ = candidates(rounds(name, {"steps": steps}, made))
    x = AddressedNoise(3, (2,)).draw(0, 0, 0)[None]
    for t, t_next in pairwise(shifted(steps)):
        x = x - (t - t_next) * MIXTURE.velocity(x, torch.tensor([t]))
    assert first.t_next == shifted(steps)[-2]
    torch.testing.assert_close(first.prediction.x0, x[0], rtol=1e-5, atol=1e-5)


@paths
def test_part_of_a_way_is_gone_at_the_models_pace(path: str) -> None:
    made, own = on(path, schedule=shifted), shifted(10)
    r = PATHS[path].time_at_ratio(LINEAR.at(own[6]).ratio)
    finish = [on_linear(path, time) for time in finish_times(made, r, 3)]
    assert finish == pytest.approx(own[7:10])
    down = [on_linear(path, time) for time in approach.visits(made, r, 6)]
    # The VP path begins a little below 1.
    assert down == pytest.approx(own[:6], abs=0.01 if path == "vp" else 1e-9)


def test_the_solves_of_sop_and_evolution_go_at_the_models_pace() -> None:
    made, own = on("linear", schedule=shifted), shifted(10)
    assert generations.visits(made, own[2], own[8], 3) == pytest.approx((own[2], own[4], own[6]))
    assert generations.visits(made, 0.5, 0.0, 1) == (0.5,)


@pytest.mark.parametrize("name", ["rbf", "svdd", "code", "smc"])
def test_the_levels_of_a_search_stay_on_its_grid(name: str) -> None:
    parameters = {"finish_steps": 0, **({"initial_noises": 4} if name == "rbf" else {})}
    plain, paced = (rounds(name, parameters, on("vp", **given)) for given in ({}, {"schedule": shifted}))
    assert [c.t_next for c in candidates(plain)] == [c.t_next for c in candidates(paced)]
