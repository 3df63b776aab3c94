"""What was answered once is not computed again, and searches end as they would without."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.recall import Recall
from benchmarks.together import together
from tests.benchmarks.test_together import METHODS, alone, asking, facts, searched, serving


def doubling(sizes: list[int]) -> Recall:
    def serve(calls: Sequence[tuple[Any, ...]]) -> list[tuple[Tensor, Tensor]]:
        sizes.append(sum(len(x) for x, *_ in calls))
        return [(2 * x, x.sum(1)) for x, *_ in calls]

    return Recall(serve, keep=4)


def test_a_row_is_computed_once_within_a_call_and_over_calls() -> None:
    sizes: list[int] = []
    recall = doubling(sizes)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    first, second = recall([(x, 7), (x[1:2], 7)])
    assert torch.equal(first[0], 2 * x)
    assert torch.equal(first[1], x.sum(1))
    assert torch.equal(second[0], 2 * x[1:2])
    [(doubled, _)] = recall([(x[:2], 7)])
    assert torch.equal(doubled, 2 * x[:2])
    assert sizes == [2]
    assert (recall.asked, recall.answered) == (6, 2)


def test_another_argument_and_another_tensor_are_another_question() -> None:
    sizes: list[int] = []
    recall = doubling(sizes)
    x, t = torch.ones(1, 2), torch.zeros(1)
    for call in ((x, 7), (x, 8), (x, t, 7), (x, t + 1, 7), (x, t, 7)):
        recall([call])
    assert sizes == [1, 1, 1, 1]


def test_of_more_rows_than_are_kept_the_latest_stay() -> None:
    sizes: list[int] = []
    recall = doubling(sizes)
    for number in (0, 1, 2, 3, 0, 4, 0, 1):
        recall([(torch.full((1, 2), float(number)),)])
    assert sizes == [1, 1, 1, 1, 1, 1], "1 was asked for again after it had been dropped, 0 had not"
    [(doubled, _)] = recall([(torch.arange(9.0)[:, None].expand(-1, 2),)])
    assert torch.equal(doubled[:, 0], 2 * torch.arange(9.0))


def test_searches_that_share_what_they_ask_end_as_alone() -> None:
    sizes: list[int] = []
    serve = serving(sizes)
    velocity = Recall(serve["velocity"], keep=1000)
    seeds = [number for number in range(len(METHODS) - 1) for _ in range(3)]
    searches = [lambda ask, seed=seed: (seed, facts(asking(seed, ask))) for seed in seeds]
    found = [*together(searches, serve | {"velocity": velocity}, rows=50, most=4)]
    assert sorted(seed for seed, _ in found) == seeds
    assert all(ended == facts(searched(alone(seed), METHODS[seed])) for seed, ended in found)
    assert velocity.asked == 3 * 60 * (len(METHODS) - 1)
    assert velocity.answered <= velocity.asked / 3


def test_what_an_answer_raises_is_raised_and_not_kept() -> None:
    refusals = 0

    def serve(_calls: Sequence[tuple[Any, ...]]) -> list[Tensor]:
        nonlocal refusals
        refusals += 1
        raise ValueError(refusals)

    recall = Recall(serve, keep=4)
    for time in (1, 2):
        with pytest.raises(ValueError, match=f"^{time}$"):
            list(together([partial(asking, 0)], {"velocity": recall}, rows=1, most=1))
