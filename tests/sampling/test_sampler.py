import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling import kernels
from sampling.errors import UnknownNameError
from sampling.grids import GRIDS
from sampling.sampler import KERNELS, Sampler


@given(st.sampled_from(sorted(GRIDS)), st.integers(1, 60))
def test_a_grid_goes_down_from_noise_to_data(name: str, steps: int) -> None:
    times = Sampler(grid=name, steps=steps).times
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(a > b for a, b in pairwise(times))


def test_the_papers_grid() -> None:
    k = [1 - i / 10 for i in range(11)]
    expected = [math.sqrt(1 - (1 - value) ** 2) for value in k]
    assert Sampler(grid="quadratic", steps=10).times == pytest.approx(expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_named_is_there(kernel: str) -> None:
    assert kernels.weights(Sampler(kernel=kernel), 0.5, 0.4).eps != 0


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("interpolant", "liner", "linear"),
        ("kernel", "euler-maruyama", "euler_maruyama"),
        ("grid", "quadratik", "quadratic"),
        ("diffusion", "squared", "square"),
    ],
)
def test_an_unknown_name_meets_its_neighbour(field: str, value: Any, near: str) -> None:  # noqa: ANN401
    with pytest.raises(UnknownNameError, match=f"did you mean '{near}'"):
        Sampler(**{field: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"diffusion_scale": -1.0},
        {"diffusion_scale": math.nan},
        {"eta": 1.5},
        {"eta": math.nan},
        {"reward_guidance": -1.0},
        {"reward_guidance": math.inf},
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Sampler(**settings)
