"""Searches side by side end as searches one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.setup import Method, searched
from benchmarks.together import Ask, Serve, together
from sampling.problem import Problem, Scores
from sampling.state import State
from tests.sampling.worlds import problem

METHODS = [
    Method("rbf", {"chains": 2, "initial_noises": 4, "finish_steps": 1}, {}),
    Method("best_of_n", {"steps": 2}, {}),
    Method("svdd", {}, {}),
    Method("smc", {}, {}),
    Method("rbf", {"initial_noises": 4, "chains": 1, "finish_steps": 0}, {"reward_guidance": 0.5}),
]


def alone(seed: int) -> Problem:
    return problem(60, seed, sampler={"steps": 5, **METHODS[seed].sampler})


def asking(seed: int, ask: Ask) -> State:
    calls = {kind: partial(ask, kind) for kind in ("velocity", "score", "slope")}
    return searched(replace(alone(seed), **calls), METHODS[seed])


def serving(seen: list[int] | None = None) -> dict[str, Serve]:
    def serve(function: Callable[..., Any]) -> Serve:
        def answer(calls: Sequence[tuple[Tensor, ...]]) -> Sequence[object]:
            if seen is not None:
                seen.append(sum(len(call[0]) for call in calls))
            with torch.inference_mode():
                return [function(*call) for call in calls]

        return answer

    world = alone(4)
    assert world.slope
    return {"velocity": serve(world.velocity), "score": serve(world.score), "slope": serve(world.slope)}


def facts(state: State) -> tuple[object, ...]:
    return (state.best[0].reward, state.best[0].nfe, state.ledger)


@pytest.mark.parametrize("most", [1, 3, 9])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_every_search_ends_as_alone(most: int, rows: int) -> None:
    searches = [lambda ask, seed=seed: (seed, facts(asking(seed, ask))) for seed in range(len(METHODS))]
    found = dict(together(searches, serving(), rows, most))
    assert found == {seed: facts(searched(alone(seed), METHODS[seed])) for seed in range(len(METHODS))}


def test_calls_of_several_searches_are_made_as_one() -> None:
    sizes: list[int] = []
    ended = [*together([partial(asking, 0)] * 4, serving(sizes), rows=100, most=4)]
    assert len(ended) == 4
    assert sum(sizes) == 2 * 4 * 60, "each of 60 predictions asks for a velocity and a score"
    assert sizes[0] == 16, "four pools of 4"
    assert len(sizes) <= 60, "as many calls as one search makes"


def test_searches_are_taken_as_there_is_room_for_them_and_told_of_as_they_end() -> None:
    taken: list[int] = []

    def searches() -> Iterator[Callable[[Ask], State]]:
        for number in range(10):
            taken.append(number)
            yield partial(asking, 0)

    ended = 0
    for ended, _ in enumerate(together(searches(), serving(), rows=1000, most=3), start=1):
        assert len(taken) - ended < 3
    assert ended == 10


def test_a_failing_reward_fails_the_searches_that_asked_and_nothing_hangs() -> None:
    def fails(calls: Sequence[object]) -> Sequence[Scores]:
        raise ZeroDivisionError(str(len(calls)))

    with pytest.raises(ZeroDivisionError, match="2"):
        list(together([partial(asking, 0)] * 3, {**serving(), "score": fails}, rows=100, most=2))
