"""The one place that spends: charge first, predict, score, complain about rewards that are no numbers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sampling.errors import BudgetExceededError, RewardError
from sampling.ledger import Ledger
from sampling.problem import Problem, Scores
from sampling.state import Address, State, evaluate, keep_best, record
from tests.sampling.worlds import TARGET, candidates, facts, problem, rounds


def batch(count: int) -> tuple[Tensor, list[Address]]:
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return x, [Address(chain=0, level=1, draw=i, t=1.0, t_next=0.9) for i in range(count)]


def test_the_ledger_refuses_before_the_model_is_called() -> None:
    def velocity(_x: Tensor, _t: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    made = replace(problem(3), velocity=velocity)
    with pytest.raises(BudgetExceededError):
        evaluate(made, State(ledger=Ledger(3)), *batch(4))


@pytest.mark.parametrize("max_batch", [None, 1, 2, 3, 7, 100])
def test_the_largest_batch_is_kept_to_and_changes_nothing(max_batch: int | None) -> None:
    sizes: list[int] = []

    def score(x0: Tensor) -> Scores:
        sizes.append(len(x0))
        return TARGET(x0)

    x, addresses = batch(7)
    state = State(ledger=Ledger(9))
    _, expected = evaluate(problem(9), state, x, addresses)
    after, got = evaluate(problem(9, max_batch=max_batch, score=score), state, x, addresses)
    assert [facts(c) for c in got] == [facts(c) for c in expected]
    assert max(sizes) == min(max_batch or 7, 7)
    assert sum(sizes) == after.ledger.reward_calls == after.ledger.decodes == 7
    assert [c.nfe for c in got] == [1, 2, 3, 4, 5, 6, 7]


def test_the_ledger_counts_forwards_and_rewards_without_images() -> None:
    def score(x0: Tensor) -> Scores:
        return replace(TARGET(x0), images=None)

    after, got = evaluate(problem(9, forwards_per_nfe=2, score=score), State(ledger=Ledger(9)), *batch(3))
    assert after.ledger == Ledger(9, nfe_spent=3, model_forwards=6, reward_calls=3)
    assert [c.image for c in got] == [None] * 3


def test_images_ride_along() -> None:
    _, got = evaluate(problem(9), State(ledger=Ledger(9)), *batch(2))
    assert [c.image.shape for c in got if c.image is not None] == [(3, 2, 2)] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("name", ["base", "best_of_n", "rbf"])
def test_a_reward_that_is_no_number_ends_the_search(name: str, *, part: bool, value: float) -> None:
    def score(x0: Tensor) -> Scores:
        good = TARGET(x0)
        if part:
            return replace(good, parts=[{"sharpness": value}] * len(x0))
        return replace(good, rewards=[value] * len(x0))

    with pytest.raises(RewardError, match=f"{'sharpness' if part else 'the reward'} is {value}"):
        rounds(name, {}, problem(60, score=score))


def test_too_few_rewards_are_refused() -> None:
    def score(x0: Tensor) -> Scores:
        good = TARGET(x0)
        return replace(good, rewards=good.rewards[1:])

    with pytest.raises(RewardError, match="3 predictions"):
        evaluate(problem(9, score=score), State(ledger=Ledger(9)), *batch(3))


def test_the_best_are_kept_best_first_and_the_earlier_of_equals() -> None:
    _, got = evaluate(problem(9), State(ledger=Ledger(9)), *batch(4))
    tied = [replace(c, reward=reward) for c, reward in zip(got, [1.0, 3.0, 3.0, 2.0], strict=True)]
    assert [c.nfe for c in keep_best(tied, 3)] == [2, 3, 4]
    state = record(problem(9, keep=2), State(ledger=Ledger(9)), tied)
    assert [c.nfe for c in state.best] == [2, 3]
    assert state.first_reward == 1.0


def test_keep_returns_that_many() -> None:
    done = rounds("best_of_n", {}, problem(20, keep=3))
    rewards = sorted((c.reward for c in candidates(done)), reverse=True)
    assert [c.reward for c in done[-1].state.best] == rewards[:3]


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 2**64}, {"nfe": 0}, {"keep": 0}, {"max_batch": 0}, {"forwards_per_nfe": 0}],
)
def test_a_problem_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Problem(**{"velocity": torch.add, "score": TARGET, "shape": (2,), "seed": 0, "nfe": 1, **wrong})
