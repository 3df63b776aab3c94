"""The pictures that wait for their level's event."""

import pytest

from benchmarks.setup import Task
from sampling.sampler import Sampler
from sampling.search import search
from sampling.strategies import make_strategy
from workers.previews import LevelPictures


@pytest.mark.parametrize("strategy", ["best_of_n", "rbf"])
def test_only_what_a_level_may_yet_end_with_is_kept(strategy: str) -> None:
    pictures, most, shown = LevelPictures(), 0, 0
    problem = Task.of("two red circles").problem(100, 0, Sampler())
    parameters = {"best_of_n": {"steps": 1}, "rbf": {"chains": 2}}[strategy]
    for around in search(problem, make_strategy(strategy, parameters)):
        wanted = pictures.of(around)
        assert all(picture is not None for picture in wanted)
        shown += len(wanted)
        most = max(most, len(pictures.seen))
    assert most <= 8  # a batch of best_of_n; rbf has two chains here
    assert (shown > 0) == (strategy == "rbf")
