"""RBF as a whole: budgets, monotone r*, batch invariance, the two modes, the finish."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.errors import BudgetTooSmallError
from sampling.events import Candidate, Decision
from sampling.interpolants import LINEAR, VP
from sampling.problem import Scores
from sampling.search import search
from sampling.strategies import make_strategy
from sampling.strategies.approach import visits
from sampling.strategies.finish import finish_times
from sampling.strategies.rbf import Rbf
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, facts, problem, rounds

searches = st.fixed_dictionaries(
    {
        "chains": st.integers(1, 4),
        "initial_noises": st.integers(4, 9),
        "width": st.integers(1, 4),
        "accept": st.sampled_from(["first", "best"]),
        "finish_steps": st.integers(0, 3),
        "start": st.sampled_from(["best", "top"]),
    }
)
samplers = st.fixed_dictionaries(
    {
        "steps": st.integers(2, 5),
        "interpolant": st.sampled_from(["linear", "vp"]),
        "kernel": st.sampled_from(["euler_maruyama", "ddim"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(parameters=searches, sampler=samplers, more=st.integers(0, 40), seed=st.integers(0, 2**64 - 1))
def test_rollover_keeps_its_promises(
    parameters: dict[str, Any], sampler: dict[str, Any], more: int, seed: int
) -> None:
    nfe = Rbf(**parameters).minimum_nfe(problem(1, sampler=sampler).sampler) + more
    done = rounds("rbf", parameters, problem(nfe, seed=seed, sampler=sampler))
    got, state = candidates(done), done[-1].state
    # The budget is spent exactly, and every evaluation is told, once, in order.
    assert state.ledger.nfe_spent == state.ledger.reward_calls == nfe
    assert [c.nfe for c in got] == list(range(1, nfe + 1))
    assert state.ledger.nfe_unused == sum(c.decision is Decision.UNUSED for c in got)
    # r* never falls, and the result is the best that was scored.
    best = [c.best_reward for c in got]
    assert best == sorted(best)
    assert state.best[0].reward == state.best_reward == best[-1] == max(c.reward for c in got)
    # Parents are on the grid above.
    by_nfe = {c.nfe: c for c in got}
    assert all(c.parent is None or by_nfe[c.parent].t_next == c.t > c.t_next for c in got)
    assert make_strategy("rbf", parameters).unspent(problem(nfe), state) is None
    # Quota arithmetic over the whole run: each chain's draws and what it did not use make up its share.
    levels = [level for level in state.levels if 0 < level.level < sampler["steps"]]
    assert {level.level for level in levels} == set(range(1, sampler["steps"]))
    pool, reserve = parameters["initial_noises"], parameters["finish_steps"]
    assert sum(level.draws for level in levels) == nfe - pool - reserve - state.ledger.nfe_unused


@settings(max_examples=25, deadline=None)
@given(
    parameters=searches,
    mode=st.sampled_from(["rollover", "upstream"]),
    max_batch=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_batch_size_changes_nothing(parameters: dict[str, Any], mode: str, max_batch: int, seed: int) -> None:
    parameters = {**parameters, "mode": mode, **({"width": 1} if mode == "upstream" else {})}
    whole = candidates(rounds("rbf", parameters, problem(80, seed=seed)))
    parts = candidates(rounds("rbf", parameters, problem(80, seed=seed, max_batch=max_batch)))
    assert [facts(c) for c in whole] == [facts(c) for c in parts]


@pytest.mark.parametrize("max_batch", [1, 2, 3])
def test_batch_size_changes_no_number_where_noises_are_approached(max_batch: int) -> None:
    parameters = {"initial_noises": 4, "first_level": 2, "approach_steps": 3}
    whole = candidates(rounds("rbf", parameters, problem(40)))
    parts = candidates(rounds("rbf", parameters, problem(40, max_batch=max_batch)))
    assert [facts(c) for c in whole] == [facts(c) for c in parts]
    assert [c.nfe for c in whole[:5]] == [4, 8, 12, 16, 17]


def decided(done: list[Any], chain: int) -> list[tuple[int, int, int, float, Decision]]:
    return [
        (c.quota, c.level, c.draw, c.reward, c.decision)
        for c in candidates(done)
        if c.chain == chain and 0 < c.level < 5 and c.decision is not Decision.UNUSED
    ]


@settings(max_examples=25, deadline=None)
@given(width=st.integers(2, 6), seed=st.integers(0, 1000), chains=st.integers(1, 3))
def test_ordered_width_decides_as_width_one(width: int, seed: int, chains: int) -> None:
    narrow = rounds("rbf", {"chains": chains}, problem(120, seed=seed))
    wide = rounds("rbf", {"chains": chains, "width": width}, problem(120, seed=seed))
    for chain in range(chains):
        for one, other in zip(decided(wide, chain), decided(narrow, chain), strict=False):
            if one != other:
                # The budget is a hard cap: unused evaluations have eaten draws of this chain.
                assert one[0] < other[0]
                break
    assert len(wide) < len(narrow)


def test_the_seed_is_all_that_chance_is() -> None:
    first, again, other = (
        [facts(c) for c in candidates(rounds("rbf", {}, problem(60, seed=seed)))] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        ({}, 25 + 4 + 2 * 9),
        ({"chains": 3, "finish_steps": 0, "initial_noises": 7}, 7 + 3 * 9),
        ({"mode": "upstream"}, 2 * 25 + 2 * 10),
    ],
)
def test_too_small_a_budget_says_what_is_needed(parameters: dict[str, Any], needed: int) -> None:
    with pytest.raises(BudgetTooSmallError, match=f"rbf needs at least {needed} NFE") as refusal:
        rounds("rbf", parameters, problem(needed - 1, sampler={}))
    assert (refusal.value.needed, refusal.value.given) == (needed, needed - 1)
    assert rounds("rbf", parameters, problem(needed, sampler={}))[-1].state.best


def test_upstream_spends_498_of_500() -> None:
    made = problem(500, sampler={})
    done = rounds("rbf", {"mode": "upstream"}, made)
    state, got = done[-1].state, candidates(done)
    assert state.ledger.nfe_spent == 498
    reason = make_strategy("rbf", {"mode": "upstream"}).unspent(made, state)
    assert reason is not None
    assert "2 chains" in reason
    # Q = (500 - 50) / (10 levels x 2 chains), though only nine levels are drawn at.
    assert {c.quota - c.carried for c in got if 0 < c.level < 9} == {22}
    assert max(c.level for c in got) == 9
    # Every chain starts from the best of its own 25.
    for chain in (0, 1):
        pool = [c for c in got if c.level == 0 and c.chain == chain]
        children = [c for c in got if c.level == 1 and c.chain == chain]
        assert len(pool) == 25
        assert {c.parent for c in children} == {max(pool, key=lambda c: c.reward).nfe}


def present_best(got: list[Candidate], chains: int) -> Candidate | None:
    """What the authors' program would return: the best over chains of the best since the chain last moved."""
    standing = []
    for chain in range(chains):
        own = [c for c in got if c.chain == chain and c.level > 0]
        moves = [
            i
            for i, c in enumerate(own)
            if c.level < 4 and c.decision in {Decision.IMPROVED, Decision.LEVEL_BEST}
        ]
        since = own[moves[-1] + 1 :] if moves else own
        standing += [max(since, key=lambda c: c.reward)] if since else []
    return max(standing, key=lambda c: c.reward, default=None)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), nfe=st.integers(40, 90), chains=st.integers(1, 3))
def test_upstream_returns_the_best_of_the_present_levels(seed: int, nfe: int, chains: int) -> None:
    done = rounds("rbf", {"mode": "upstream", "chains": chains, "initial_noises": 8}, problem(nfe, seed=seed))
    got: list[Candidate] = []
    for one in done:
        got += one.candidates
        expected = present_best(got, chains)
        if one.state.chains and expected is not None:
            assert one.state.best[0].nfe == expected.nfe
    assert done[-1].state.ledger.nfe_spent + chains >= nfe
    assert done[-1].state.ledger.nfe_spent < nfe


def rugged(x0: torch.Tensor) -> Scores:
    """A reward that a small move may undo."""
    rewards = torch.sin(37 * x0[:, 0]).tolist()
    return Scores(rewards=rewards, parts=[{} for _ in rewards], images=None)


def test_upstream_can_return_less_than_the_best_of_the_run() -> None:
    """What the authors' program loses and rollover keeps (see the first test of this file)."""
    states = [
        rounds("rbf", {"mode": "upstream", "initial_noises": 8}, problem(60, seed=seed, score=rugged))[
            -1
        ].state
        for seed in range(10)
    ]
    assert any(state.best[0].reward < state.best_reward for state in states)


def test_the_finish_goes_from_the_best_to_the_data() -> None:
    done = rounds("rbf", {"finish_steps": 3}, problem(80))
    got, state = candidates(done), done[-1].state
    finish = [c for c in got if c.level == 5]
    before = got[: -len(finish)]
    assert [c.nfe for c in finish] == [78, 79, 80]
    assert finish[0].parent == max(before, key=lambda c: c.reward).nfe
    assert finish[1].parent == finish[0].nfe
    assert state.levels[-1].t == 0.0
    assert state.levels[-1].candidate == 80


def test_finish_times_are_uniform_where_the_model_is() -> None:
    times = finish_times(problem(1), 0.6, 4)
    linear = [LINEAR.time_at_ratio(VP.at(r).ratio) for r in (0.6, *times)]
    assert linear == pytest.approx([linear[0] * i / 5 for i in (5, 4, 3, 2, 1)])
    assert finish_times(problem(1, sampler={"interpolant": "linear"}), 1.0, 1) == (0.5,)


@pytest.mark.parametrize("path", ["linear", "vp"])
@pytest.mark.parametrize("end", [0.9999, 0.999, 0.9, 0.5])
def test_the_approach_goes_down_from_one_wherever_it_ends(path: str, end: float) -> None:
    # The VP path has some signal left at 1: times of the linear path above that are not on it.
    times = visits(problem(1, sampler={"interpolant": path}), end, 4)
    assert times[0] == 1.0
    assert [*times, end] == sorted([*times, end], reverse=True)
    assert len(set(times)) == 4


def test_no_prediction_is_made_twice() -> None:
    asked: list[tuple[float, ...]] = []

    def counted(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.extend(map(tuple, torch.cat([x, t[:, None]], dim=1).tolist()))
        return MIXTURE.velocity(x, t)

    rounds("rbf", {"width": 3}, replace(problem(60), velocity=counted))
    assert len(set(asked)) == len(asked) == 60


def test_every_round_has_a_result_and_the_caller_may_stop() -> None:
    for one in rounds("rbf", {"initial_noises": 9}, problem(60, max_batch=4)):
        assert math.isfinite(one.state.best[0].reward)
        assert one.state.first_reward is not None
        assert one.state.ledger.nfe_spent == one.candidates[-1].nfe


def test_model_and_reward_run_in_inference_mode() -> None:
    modes: list[bool] = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return MIXTURE.velocity(x, t)

    done = rounds("rbf", {}, replace(problem(60), velocity=velocity))
    assert modes == [True] * len(done)


def test_the_caller_is_not_left_in_inference_mode() -> None:
    for _ in search(problem(40), make_strategy("rbf", {"initial_noises": 5})):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "downstream"},
        {"chains": 0},
        {"initial_noises": 0},
        {"width": 0},
        {"accept": "worst"},
        {"finish_steps": -1},
        {"start": "bottom"},
        {"mode": "upstream", "width": 2},
        {"start": "top", "initial_noises": 1},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"one of|at least|one child|cannot start"):
        make_strategy("rbf", wrong)


def test_a_sampler_of_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 steps"):
        rounds("rbf", {}, problem(100, sampler={"steps": 1}))


def test_an_unknown_strategy_meets_its_neighbour() -> None:
    with pytest.raises(ValueError, match="did you mean 'best_of_n'"):
        make_strategy("best-of-n")
