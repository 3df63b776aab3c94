"""Each takes out, or puts in, what its name says, and spends as the whole does."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.ablations import ABLATIONS, BestOfRun, EndOfRun
from sampling.events import Round
from sampling.search import search
from sampling.strategies.rbf import Rbf, RbfState
from tests.sampling.worlds import problem

SEEDS = range(6)
PARAMS: dict[str, Any] = {"chains": 2, "initial_noises": 4, "finish_steps": 2}
UPSTREAM: dict[str, Any] = {"mode": "upstream", "chains": 2, "initial_noises": 4}


def rounds(strategy: Rbf, seed: int, nfe: int = 80, steps: int = 5) -> Sequence[Round[RbfState]]:
    return [*search(problem(nfe, seed, sampler={"steps": steps}), strategy)]


def both(name: str, seed: int) -> tuple[Sequence[Round[RbfState]], ...]:
    return rounds(ABLATIONS[name](**PARAMS), seed), rounds(Rbf(**PARAMS), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_rollover_every_level_but_the_last_has_the_same_quota(seed: int) -> None:
    without, whole = both("rbf without rollover", seed)
    state = without[-1].state
    base = Rbf(**PARAMS).plan(problem(80, seed, sampler={"steps": 5})).base_quota
    upper = [level for level in state.levels if 0 < level.level < 4]
    assert {level.quota for level in upper} == {base}
    assert {level.carried for level in upper} == {0}
    assert state.ledger.nfe_spent == whole[-1].state.ledger.nfe_spent == 80


def test_with_rollover_they_have_not() -> None:
    carried = [
        lv.carried for seed in SEEDS for lv in rounds(Rbf(**PARAMS), seed)[-1].state.levels if lv.level < 4
    ]
    assert any(carried)


def test_the_end_of_the_run_is_where_the_finish_ends() -> None:
    worse = 0
    for seed in SEEDS:
        ended, whole = both("rbf, the end of the run", seed)
        [last] = ended[-1].candidates
        assert [best.nfe for best in ended[-1].state.best] == [last.nfe] == [80]
        assert ended[-1].state.best[0].image is not None
        assert ended[-1].state.best_reward == whole[-1].state.best_reward
        worse += last.reward < whole[-1].state.best[0].reward
    assert worse
    assert EndOfRun(**PARAMS).minimum_nfe(problem(80, 0).sampler) == Rbf(**PARAMS).minimum_nfe(
        problem(80, 0).sampler
    )


def test_the_authors_way_with_the_best_of_the_run_returns_the_best_that_it_met() -> None:
    better = 0
    for seed in range(40):
        ours, theirs = (rounds(way(**UPSTREAM), seed, 40, 10) for way in (BestOfRun, Rbf))
        met = [candidate.reward for each in ours for candidate in each.candidates]
        assert ours[-1].state.best[0].reward == max(met)
        assert met == [candidate.reward for each in theirs for candidate in each.candidates]
        better += max(met) > theirs[-1].state.best[0].reward
    assert better
