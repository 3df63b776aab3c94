"""What predictions foretell is measured rightly, and the settings follow from it."""

import math
from dataclasses import replace

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
    rewards_down,
)
from sampling.grids import linear
from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from sampling.strategies import make_strategy


def scored(x: Tensor) -> Scores:
    rewards = x.flatten(1).sum(1).tolist()
    return Scores(rewards, [{} for _ in rewards], None)


def problem(velocity: object) -> Problem:
    return Problem(velocity=velocity, score=scored, shape=(2,), seed=3, nfe=10)  # type: ignore[arg-type]


def found(*correlations: float) -> list[Level]:
    times = linear(len(correlations))[:-1]
    return [Level(t, c, 0.0, 5) for t, c in zip(times, correlations, strict=True)]


def test_a_straight_flow_foretells_all_from_the_start() -> None:
    # Every noise goes straight to its own half: one step lands where ten do.
    told = foresight(problem(lambda x, t: x / (1 + t[:, None])), noises=8)
    assert told == pytest.approx(dict.fromkeys(linear(STEPS)[:-1], 1.0), abs=1e-4)


def test_noises_go_down_at_the_models_own_times() -> None:
    own, asked = (1.0, 0.9, 0.7, 0.3, 0.0), list[float]()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x / (1 + t[:, None])

    shifted = replace(problem(velocity), schedule=lambda steps: own[: steps + 1])
    assert list(foresight(shifted, noises=8, steps=4)) == list(own[:-1])
    assert asked == pytest.approx(own[:-1])
    x = torch.ones(3, 2)
    assert rewards_down(shifted, x, own)[-1] == pytest.approx([1.0] * 3), "straight: half of what it was"


def test_a_prediction_that_is_the_mean_foretells_nothing() -> None:
    # The way to t = .5 adds a number that only its end knows: above it the prediction is the same for all.
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        late = (t < 0.55)[:, None]
        return torch.where(late, torch.zeros_like(x), x / t[:, None])

    told = foresight(problem(velocity), noises=8)
    assert all(c == 0 for t, c in told.items() if t > 0.55)
    assert [c for t, c in told.items() if t < 0.55] == pytest.approx([1.0] * 5, abs=1e-6)


def test_prompts_whose_ends_are_alike_have_no_correlation_at_any_level() -> None:
    told = foresight(problem(lambda x, t: x / t[:, None]), noises=8)
    assert all(map(math.isnan, told.values()))


@pytest.mark.parametrize("magnitude", [1e-9, 1.0, 1e9])
def test_what_is_alike_is_judged_by_the_rewards_magnitude(magnitude: float) -> None:
    made = problem(lambda x, t: x / (1 + t[:, None]))

    def score(x: Tensor) -> Scores:
        rewards = [magnitude * reward for reward in scored(x).rewards]
        return Scores(rewards, [{} for _ in rewards], None)

    def rounded(x: Tensor) -> Scores:
        rewards = [magnitude * (3 + 1e-7 * reward) for reward in scored(x).rewards]
        return Scores(rewards, [{} for _ in rewards], None)

    told = foresight(replace(made, score=score), 8).values()
    assert list(told) == pytest.approx([1.0] * STEPS, abs=1e-4)
    assert all(map(math.isnan, foresight(replace(made, score=rounded), 8).values()))


@pytest.mark.parametrize("most", [1, 3, 8, None])
def test_no_call_has_more_rows_than_the_problem_allows_and_nothing_changes(most: int | None) -> None:
    sizes: list[int] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.roll(1, -1) / (1 + t[:, None])

    told = foresight(replace(problem(velocity), max_batch=most), noises=8)
    assert max(sizes) == (most or 8)
    assert told == foresight(problem(velocity), noises=8)


def test_means_and_errors_are_over_the_prompts_that_have_a_correlation() -> None:
    nan = float("nan")
    told = [(0.2, 0.9), (nan, nan), (0.6, 0.5), (0.4, 0.7), (0.0, nan)]
    high, low = levels([{1.0: early, 0.7: late} for early, late in told])
    assert (high.t, high.correlation, high.prompts) == (1.0, pytest.approx(0.4), 3)
    assert high.error == pytest.approx(0.2 / 3**0.5)
    assert (low.t, low.correlation, low.prompts) == (0.7, pytest.approx(0.7), 3), "the same three"


def test_of_one_prompt_there_is_no_error() -> None:
    [level] = levels([{1.0: 0.3}])
    assert level.error is None
    assert level.shown == "0.30 (one prompt)"


def test_rewards_that_are_all_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to foretell"):
        levels([{1.0: float("nan"), 0.5: 0.5}])


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
