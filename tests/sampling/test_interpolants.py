import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampling.interpolants import INTERPOLANTS, LINEAR, VP

# The formulas of the design, written once more in torch so that autograd can differentiate them.
FORMULAS = {
    "linear": (lambda t: 1 - t, lambda t: t),
    "vp": (
        lambda t: torch.exp(-(t**2 * 19.9 / 2 + 0.1 * t) / 2),
        lambda t: torch.sqrt(1 - torch.exp(-(t**2 * 19.9 / 2 + 0.1 * t))),
    ),
}

paths = st.sampled_from(sorted(INTERPOLANTS))


@given(paths, st.floats(0.001, 1.0))
def test_coefficients_and_derivatives_equal_autograd(name: str, time: float) -> None:
    at = INTERPOLANTS[name].at(time)
    for formula, value, derivative in zip(
        FORMULAS[name], (at.alpha, at.sigma), (at.d_alpha, at.d_sigma), strict=True
    ):
        t = torch.tensor(time, dtype=torch.float64, requires_grad=True)
        expected = formula(t)
        (slope,) = torch.autograd.grad(expected, t)
        assert value == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
        assert derivative == pytest.approx(slope.item(), rel=1e-9)


@given(paths, st.floats(0.0, 1.0))
def test_time_to_ratio_and_back(name: str, time: float) -> None:
    path = INTERPOLANTS[name]
    assert path.time_at_ratio(path.at(time).ratio) == pytest.approx(time, rel=1e-7, abs=1e-12)


@given(st.floats(0.0, 1.0))
def test_vp_preserves_the_variance(time: float) -> None:
    at = VP.at(time)
    assert at.alpha**2 + at.sigma**2 == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", sorted(INTERPOLANTS))
def test_the_ends(name: str) -> None:
    data, noise = INTERPOLANTS[name].at(0.0), INTERPOLANTS[name].at(1.0)
    assert (data.alpha, data.sigma, data.ratio) == (1.0, 0.0, math.inf)
    assert noise.sigma == pytest.approx(1.0, abs=1e-4)
    assert noise.ratio < 0.01
    assert INTERPOLANTS[name].time_at_ratio(math.inf) == 0.0


def test_vp_noise_grows_infinitely_fast_at_the_data() -> None:
    assert VP.at(0.0).d_sigma == math.inf


@pytest.mark.parametrize("time", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", sorted(INTERPOLANTS))
def test_a_time_outside_is_refused(name: str, time: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        INTERPOLANTS[name].at(time)


def test_a_ratio_never_reached_is_refused() -> None:
    with pytest.raises(ValueError, match="never reaches"):
        VP.time_at_ratio(0.0)
    with pytest.raises(ValueError, match="never negative"):
        LINEAR.time_at_ratio(-1.0)
