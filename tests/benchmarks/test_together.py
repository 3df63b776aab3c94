"""Searches side by side end as searches one by one."""

import pytest
import torch
from torch import Tensor

from benchmarks.setup import Method, Task, run, searched
from benchmarks.together import together
from sampling.problem import Problem, Scores
from tests.sampling.worlds import TARGET, problem

METHODS = [
    Method("rbf", {"initial_noises": 4, "finish_steps": 1}, {}),
    Method("best_of_n", {"steps": 2}, {}),
    Method("svdd", {}, {}),
    Method("smc", {}, {}),
    Method("rbf", {"initial_noises": 4, "chains": 1, "finish_steps": 0}, {"reward_guidance": 0.5}),
]


def facts(state: object) -> tuple[object, ...]:
    return (state.best[0].reward, state.best[0].nfe, state.ledger)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("most", [1, 3, 5])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_every_search_ends_as_alone(most: int, rows: int) -> None:
    chosen = dict(enumerate(METHODS))
    problems = [problem(60, seed, sampler={"steps": 5, **method.sampler}) for seed, method in chosen.items()]

    def search(one: Problem) -> tuple[object, ...]:
        return facts(searched(one, chosen[one.seed]))

    assert together(problems, search, most, rows) == [search(one) for one in problems]


def test_calls_of_several_searches_are_made_as_one() -> None:
    sizes: list[int] = []

    def score(x0: Tensor) -> Scores:
        sizes.append(len(x0))
        return TARGET(x0)

    problems = [problem(40, seed, score) for seed in range(4)]
    together(problems, lambda one: searched(one, METHODS[0]), 4, 100)
    assert sum(sizes) == 160
    assert sizes[0] == 16, "four pools of 4"
    assert len(sizes) <= 40 / 2, "as many calls as one search makes, or fewer"


def test_a_failing_reward_fails_the_searches_that_asked_and_nothing_hangs() -> None:
    def score(x0: Tensor) -> Scores:
        raise ZeroDivisionError(str(len(x0)))

    with pytest.raises(ZeroDivisionError):
        together([problem(40, seed, score) for seed in range(3)], lambda p: searched(p, METHODS[0]), 2, 8)


def test_on_the_bundled_model_results_are_those_of_the_unbatched_up_to_rounding() -> None:
    task = Task.of("two red circles and a blue square")
    cells = [Method("rbf", {"initial_noises": 4}, {}), Method("svdd", {}, {}), Method("best_of_n", {}, {})]
    problems = [task.problem(30, seed, method.moves) for seed, method in enumerate(cells)]
    gathered = together(problems, lambda p: searched(p, cells[p.seed]), 3, 5)
    for seed, (method, state) in enumerate(zip(cells, gathered, strict=True)):
        alone = run(task, method, 30, seed)
        assert state.ledger == alone.ledger
        assert state.best[0].reward == pytest.approx(alone.best[0].reward, abs=1e-4)
        # Which searches share a call is a race, and svdd carries its rounding on: 7e-4 at most in 12 runs.
        assert torch.allclose(state.best[0].x, alone.best[0].x, atol=5e-3)
