"""What every strategy promises, whatever its parameters."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampling.checkpoint import restore, save
from sampling.diffusions import DIFFUSIONS
from sampling.errors import BudgetTooSmallError
from sampling.grids import GRIDS
from sampling.problem import Problem, Scores
from sampling.search import search
from sampling.state import State
from sampling.strategies import STRATEGIES, make_strategy
from tests.sampling.worlds import candidates, facts, problem, rounds

steps = st.integers(1, 4)
chains = st.integers(1, 3)
finish_steps = st.integers(0, 3)
correlation = st.sampled_from([0.0, 0.5, 0.95])

own_way = {
    "interpolant": st.sampled_from(["linear", "vp"]),
    "kernel": st.sampled_from(["ode", "euler_maruyama", "ddim"]),
    "grid": st.sampled_from(sorted(GRIDS)),
}

PARAMETERS: Mapping[str, st.SearchStrategy[dict[str, Any]]] = {
    "base": st.fixed_dictionaries({"steps": steps}, optional=own_way),
    "best_of_n": st.fixed_dictionaries({"steps": steps, "batch": st.integers(1, 5)}, optional=own_way),
    "rbf": st.fixed_dictionaries(
        {
            "chains": chains,
            "initial_noises": st.integers(1, 9),
            "width": st.integers(1, 3),
            "accept": st.sampled_from(["first", "best"]),
            "finish_steps": finish_steps,
            "first_level": st.integers(0, 2),
            "approach_steps": st.integers(1, 3),
        }
    )
    | st.fixed_dictionaries(
        {"mode": st.just("upstream"), "chains": chains, "initial_noises": st.integers(1, 5)}
    ),
    "zero_order": st.fixed_dictionaries(
        {
            "steps": st.none() | steps,
            "neighbours": st.integers(1, 5),
            "correlation": correlation,
            "patience": st.none() | st.integers(1, 2),
            "finish_steps": finish_steps,
        },
        optional=own_way,
    ),
    "sop": st.fixed_dictionaries(
        {
            "paths": st.integers(1, 3),
            "forward": st.sampled_from([0.3, 0.4]),
            "back": st.sampled_from([0.7, 0.8]),
            "steps": steps,
        },
        optional=own_way,
    ),
    "smc": st.fixed_dictionaries(
        {
            "potential": st.sampled_from(["difference", "max", "sum", "reward"]),
            "inverse_temperature": st.sampled_from([0.0, 1.0, 100.0]),
            "ess_threshold": st.sampled_from([0.0, 0.5, 1.0]),
            "finish_steps": finish_steps,
        }
    ),
    "code": st.fixed_dictionaries(
        {"chains": chains, "block": st.integers(1, 6), "finish_steps": finish_steps}
    ),
    "svdd": st.fixed_dictionaries(
        {"chains": chains, "temperature": st.sampled_from([0.0, 1e-300, 0.5]), "finish_steps": finish_steps}
    ),
    "evolution": st.fixed_dictionaries(
        {
            "generations": st.integers(1, 4),
            "elites": st.integers(1, 3),
            "correlation": correlation,
            "steps": steps,
            "finish_steps": finish_steps,
        },
        optional=own_way,
    ),
}

searches = st.sampled_from(sorted(PARAMETERS)).flatmap(
    lambda name: st.tuples(st.just(name), PARAMETERS[name])
)
Search = tuple[str, dict[str, Any]]
samplers = st.fixed_dictionaries(
    {
        "steps": st.integers(2, 5),
        "interpolant": st.sampled_from(["linear", "vp"]),
        "kernel": st.sampled_from(["ode", "euler_maruyama", "ddim"]),
        "grid": st.sampled_from(sorted(GRIDS)),
        "diffusion": st.sampled_from(sorted(DIFFUSIONS)),
        "diffusion_scale": st.sampled_from([0.0, 0.7, 3.0]),
        "eta": st.sampled_from([0.0, 0.5, 1.0]),
        "reward_guidance": st.sampled_from([0.0, 0.3]),
    }
)
more = st.integers(0, 40)
seeds = st.integers(0, 2**64 - 1)


def affordable(tried: Search, sampler: dict[str, Any], more: int, seed: int, **settings: Any) -> Problem:  # noqa: ANN401
    """A problem with ``more`` NFE than the strategy needs."""
    name, parameters = tried
    assume(sampler["steps"] >= parameters.get("first_level", 0) + 2)
    least = make_strategy(name, parameters).minimum_nfe(problem(1, sampler=sampler).sampler)
    return problem(least + more, seed=seed, sampler=sampler, **settings)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"base"}))
def test_a_search_finds_more_than_one_run(name: str) -> None:
    def mean_best(strategy: str) -> float:
        ends = [rounds(strategy, {}, problem(120, seed=seed))[-1].state for seed in range(8)]
        return sum(end.best[0].reward for end in ends) / len(ends)

    assert mean_best(name) > mean_best("base") / 2  # rewards are negative: less than half as far away


@pytest.fixture(scope="module")
def meta() -> torch.device:
    """A device whose tensors hold no numbers; what its first product imports sets an environment variable."""
    device = torch.device("meta")
    assert (torch.ones(1, device=device) * torch.ones(1, device=device)).is_meta
    return device


@pytest.mark.parametrize("kernel", ["ode", "ddim"])
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_latents_stay_on_their_device_and_nothing_there_is_read(
    name: str, kernel: str, meta: torch.device
) -> None:
    verdicts = count()

    def score(x0: Tensor) -> Scores:
        return Scores([float(next(verdicts) * 7 % 11) for _ in x0], [{} for _ in x0], x0)

    # To read a tensor of this device is an error, and so is to mix it with one of the CPU's.
    made = problem(
        90, score=score, velocity=lambda x, t: x * t[:, None], device=meta, sampler={"kernel": kernel}
    )
    got = candidates(rounds(name, {}, made))
    held = [tensor for c in got for tensor in (c.x, c.prediction.x0, c.prediction.eps, c.image)]
    assert {tensor.device.type for tensor in held if tensor is not None} == {meta.type}


def test_every_strategy_is_tried() -> None:
    assert set(PARAMETERS) == set(STRATEGIES)


@settings(max_examples=300, deadline=None)
@given(tried=searches, sampler=samplers, more=more, seed=seeds)
def test_the_budget_is_kept_and_every_evaluation_told(
    tried: Search, sampler: dict[str, Any], more: int, seed: int
) -> None:
    made = affordable(tried, sampler, more, seed)
    done = rounds(*tried, made)
    state, got, ledger = done[-1].state, candidates(done), done[-1].state.ledger
    assert ledger.nfe_spent <= made.nfe
    assert ledger.nfe_spent == ledger.model_forwards
    # Guided by the reward, every prediction is scored, those that only serve the next step too.
    guided = sampler["reward_guidance"] > 0
    assert ledger.reward_calls == ledger.decodes == (made.nfe - ledger.nfe_left if guided else len(got))
    assert ledger.gradients == (ledger.nfe_spent if guided else 0)
    assert (make_strategy(*tried).unspent(made, state) is None) == (ledger.nfe_left == 0)
    spent = [one.state.ledger.nfe_spent for one in done]
    assert spent == sorted(set(spent))
    # Candidates are named by the NFE, in order, and come from candidates told before them.
    assert all(a.nfe < b.nfe <= ledger.nfe_spent for a, b in pairwise(got))
    told: set[int] = set()
    for one in done:
        assert {c.parent for c in one.candidates} <= told | {None}
        told |= {c.nfe for c in one.candidates}
        assert {level.candidate for level in one.levels} <= told
    reserve = tried[1].get("finish_steps", 0)
    searched, finish = got[: len(got) - reserve], got[len(got) - reserve :]
    assert [(c.level, c.draw) for c in finish] == [(sampler["steps"], draw) for draw in range(reserve)]
    places = [(c.chain, c.level, c.draw) for c in searched]
    assert len(set(places)) == len(places)
    assert all(0 < c.t_next <= c.t <= 1 for c in got)
    assert state.levels == tuple(level for one in done for level in one.levels)


@settings(max_examples=200, deadline=None)
@given(tried=searches, sampler=samplers, more=more, seed=seeds, max_batch=st.integers(1, 3))
def test_a_level_is_known_by_its_chain_and_the_evaluation_it_is_left_after(
    tried: Search, sampler: dict[str, Any], more: int, seed: int, max_batch: int
) -> None:
    made = affordable(tried, sampler, more, seed)

    def left(made: Problem) -> list[tuple[int, int]]:
        done = rounds(*tried, made)
        return [(level.chain, one.candidates[-1].nfe) for one in done for level in one.levels]

    told = left(made)
    assert len(set(told)) == len(told)
    assert left(replace(made, max_batch=max_batch)) == told


@settings(max_examples=200, deadline=None)
@given(tried=searches, sampler=samplers, more=more, seed=seeds, keep=st.integers(1, 4))
def test_the_result_is_the_best_of_the_run_at_every_round(
    tried: Search, sampler: dict[str, Any], more: int, seed: int, keep: int
) -> None:
    met: list[tuple[float, int]] = []
    upstream = tried[1].get("mode") == "upstream"
    for one in rounds(*tried, affordable(tried, sampler, more, seed, keep=keep)):
        for candidate in one.candidates:
            met.append((-candidate.reward, candidate.nfe))
            assert candidate.best_reward == -min(met)[0]
        if not met:
            assert one.state.best == ()
        elif not upstream:
            assert [c.nfe for c in one.state.best] == [nfe for _, nfe in sorted(met)[:keep]]
        assert one.state.best_reward == (-min(met)[0] if met else None)


@settings(max_examples=200, deadline=None)
@given(tried=searches, sampler=samplers, more=more, seed=seeds, max_batch=st.integers(1, 9))
def test_the_seed_decides_and_batches_do_not(
    tried: Search, sampler: dict[str, Any], more: int, seed: int, max_batch: int
) -> None:
    whole = candidates(rounds(*tried, affordable(tried, sampler, more, seed)))
    parts = candidates(rounds(*tried, affordable(tried, sampler, more, seed, max_batch=max_batch)))
    assert [facts(c) for c in whole] == [facts(c) for c in parts]
    other = candidates(rounds(*tried, affordable(tried, sampler, more, seed ^ 1)))
    assert all(a.x.tolist() != b.x.tolist() for a, b in zip(whole, other, strict=False))


def through_json(state: State) -> State:
    tensors, meta = save(state)
    return restore(tensors, json.loads(json.dumps(meta, allow_nan=False)))


@settings(max_examples=120, deadline=None)
@given(tried=searches, sampler=samplers, more=more, seed=seeds)
def test_a_search_saved_at_every_round_is_the_undisturbed_one(
    tried: Search, sampler: dict[str, Any], more: int, seed: int
) -> None:
    made = affordable(tried, sampler, more, seed, keep=2)
    whole = rounds(*tried, made)
    state = through_json(whole[0].state)
    for expected in whole[1:]:
        one = next(search(made, make_strategy(*tried), state))
        assert [facts(c) for c in one.candidates] == [facts(c) for c in expected.candidates]
        assert one.levels == expected.levels
        state = through_json(one.state)
    assert make_strategy(*tried).finished(made, state)
    end = whole[-1].state
    assert [facts(c) for c in state.best] == [facts(c) for c in end.best]
    assert (state.ledger, state.levels) == (end.ledger, end.levels)
    assert (state.first_reward, state.best_reward) == (end.first_reward, end.best_reward)


@settings(max_examples=120, deadline=None)
@given(tried=searches, sampler=samplers)
def test_one_less_than_the_least_is_refused_with_the_least(tried: Search, sampler: dict[str, Any]) -> None:
    made = affordable(tried, sampler, 0, 0)
    assert rounds(*tried, made)[-1].state.best
    if made.nfe > 1:
        name, parameters = tried
        with pytest.raises(BudgetTooSmallError, match=f"{name} needs at least {made.nfe} NFE"):
            rounds(name, parameters, problem(made.nfe - 1, sampler=sampler))
