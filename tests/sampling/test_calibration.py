"""What predictions foretell is measured rightly, and the settings follow from it."""

import math

import pytest
import torch
from torch import Tensor

from sampling.calibration import (
    STEPS,
    Level,
    Recommendation,
    foresight,
    informative_from,
    levels,
    linear_time,
    recommend,
    times,
)
from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from sampling.strategies import make_strategy


def scored(x: Tensor) -> Scores:
    rewards = x.flatten(1).sum(1).tolist()
    return Scores(rewards, [{} for _ in rewards], None)


def problem(velocity: object) -> Problem:
    return Problem(velocity=velocity, score=scored, shape=(2,), seed=3, nfe=10)  # type: ignore[arg-type]


def found(*correlations: float) -> list[Level]:
    return [Level(t, c, 0.0, 5) for t, c in zip(times(len(correlations)), correlations, strict=True)]


def test_a_straight_flow_foretells_all_from_the_start() -> None:
    # Every noise goes straight to its own half: one step lands where ten do.
    told = foresight(problem(lambda x, t: x / (1 + t[:, None])), noises=8)
    assert told == pytest.approx([1.0] * STEPS, abs=1e-4)


def test_a_prediction_that_is_the_mean_foretells_nothing() -> None:
    # The way to t = .5 adds a number that only its end knows: above it the prediction is the same for all.
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        late = (t < 0.55)[:, None]
        return torch.where(late, torch.zeros_like(x), x / t[:, None])

    told = foresight(problem(velocity), noises=8)
    assert all(math.isnan(c) for t, c in zip(times(), told, strict=True) if t > 0.55)
    assert [c for t, c in zip(times(), told, strict=True) if t < 0.55] == pytest.approx([1.0] * 5, abs=1e-6)


def test_means_and_errors_are_over_the_prompts_that_have_a_correlation() -> None:
    high, low = levels([[0.2, 0.9], [0.6, float("nan")], [0.4, 0.7]])
    assert (high.t, high.correlation, high.prompts) == (1.0, pytest.approx(0.4), 3)
    assert high.error == pytest.approx(0.2 / 3**0.5)
    assert (low.t, low.correlation, low.prompts) == (0.5, pytest.approx(0.8), 2)


def test_rewards_that_are_all_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to foretell"):
        levels([[float("nan"), 0.5]])


def test_a_few_step_model_keeps_the_defaults() -> None:
    assert recommend(found(0.6, 0.7, 0.9, 0.95), 10) == Recommendation("from_noise")


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_an_undistilled_model_begins_where_predictions_tell_something(steps: int) -> None:
    told = found(0.0, 0.1, 0.3, 0.6, 0.8, 0.9, 0.9, 0.95, 0.95, 1.0)
    start = informative_from(told) or 0.0
    assert start == pytest.approx(0.7)
    advice = recommend(told, steps)
    sampler = Sampler(**advice.sampler, steps=steps)
    rbf = make_strategy("rbf", advice.rbf)
    first = advice.rbf["first_level"]
    assert linear_time(sampler, first + 1) <= start < linear_time(sampler, first), "one above, and no more"
    assert steps - first >= 2
    assert rbf.minimum_nfe(sampler) < 100
    lower = recommend(found(0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 1.0), steps)
    assert lower.rbf["first_level"] > first


def test_a_dip_below_moves_the_start_down() -> None:
    assert informative_from(found(0.9, 0.9, 0.2, 0.9)) == 0.25
    assert informative_from(found(0.9, 0.9, 0.9, 0.2)) is None


@pytest.mark.parametrize(
    "told", [[0.0] * STEPS, [0.9] * 9 + [0.2], [0.1] * 9 + [0.9]], ids=["never", "not at last", "too late"]
)
def test_a_model_that_foretells_nothing_is_not_taken_for_a_few_step_one(told: list[float]) -> None:
    assert recommend(found(*told), 10) == Recommendation("nothing")
