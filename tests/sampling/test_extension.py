"""A search that goes on: what it then is, and which searches can."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.errors import NotExtendableError
from sampling.events import Candidate, Round
from sampling.extension import extended
from sampling.problem import Problem
from sampling.search import search
from sampling.strategies import STRATEGIES, make_strategy
from tests.sampling.test_every_strategy import through_json
from tests.sampling.worlds import candidates, facts, problem, rounds

STEPS = 4


def on(name: str, parameters: dict[str, Any], made: Problem, state: Any, more: int) -> list[Round[Any]]:  # noqa: ANN401
    """A search from a state on, with so much more than it has spent."""
    problem = replace(made, nfe=state.ledger.nfe_spent + more)
    strategy = make_strategy(name, parameters)
    return list(search(problem, strategy, extended(problem, strategy, through_json(state))))


def told(found: list[Candidate]) -> list[tuple[object, ...]]:
    return [facts(replace(candidate, quota=0, carried=0)) for candidate in found]


def same(parts: list[list[Round[Any]]], whole: list[Round[Any]]) -> None:
    """The rounds of some parts tell what one long search does, bit for bit."""
    assert told([c for part in parts for c in candidates(part)]) == told(candidates(whole))
    end, expected = parts[-1][-1].state, whole[-1].state
    assert told(end.best) == told(expected.best)
    assert (end.ledger.nfe_spent, end.first_reward) == (expected.ledger.nfe_spent, expected.first_reward)


seeds = st.integers(0, 2**64 - 1)
more_runs = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(first=more_runs, then=more_runs, batch=st.integers(1, 5), left=st.integers(0, STEPS - 1), seed=seeds)
def test_best_of_n_and_more_is_best_of_all(first: int, then: int, batch: int, left: int, seed: int) -> None:
    made = problem(first * STEPS + left, seed=seed, sampler={"steps": STEPS}, keep=3)
    begun = rounds("best_of_n", {"batch": batch}, made)
    more = on("best_of_n", {"batch": batch}, made, begun[-1].state, then * STEPS)
    whole = rounds("best_of_n", {"batch": batch}, replace(made, nfe=(first + then) * STEPS))
    # Runs of one batch are told together: which NFE names a run depends on how batches fall.
    unnamed = [[replace(c, nfe=0, best_reward=0.0) for c in candidates(one)] for one in (begun + more, whole)]
    assert told(unnamed[0]) == told(unnamed[1])
    ends = [one[-1].state for one in (more, whole)]
    assert [c.x.tolist() for c in ends[0].best] == [c.x.tolist() for c in ends[1].best]
    assert ends[0].ledger.nfe_spent == ends[1].ledger.nfe_spent
    if first % batch == 0:
        same([begun, more], whole)


@settings(max_examples=60, deadline=None)
@given(
    first=more_runs,
    then=st.integers(1, 30),
    neighbours=st.integers(1, 4),
    patience=st.none() | st.integers(1, 2),
    seed=seeds,
)
def test_zero_order_goes_on_after_whole_generations(
    first: int, then: int, neighbours: int, patience: int | None, seed: int
) -> None:
    parameters = {"neighbours": neighbours, "patience": patience}
    made = problem(first * neighbours * STEPS, seed=seed, sampler={"steps": STEPS})
    begun = rounds("zero_order", parameters, made)
    more = on("zero_order", parameters, made, begun[-1].state, then * STEPS)
    same([begun, more], rounds("zero_order", parameters, replace(made, nfe=made.nfe + then * STEPS)))


rbf = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["rollover", "upstream"]),
        "chains": st.integers(1, 3),
        "initial_noises": st.integers(3, 6),
        "start": st.just("best"),
        "finish_steps": st.just(0),
    }
)


@settings(max_examples=100, deadline=None)
@given(
    parameters=rbf,
    rest=st.integers(0, 12),
    then=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=seeds,
)
def test_rbf_goes_on_as_one_long_search_with_the_same_plan(
    parameters: dict[str, Any], rest: int, then: list[int], seed: int
) -> None:
    """Each part pays for as many draws of every chain, so that rounds fall alike."""
    chains, sampler = parameters["chains"], {"steps": STEPS}
    upstream = parameters["mode"] == "upstream"
    least = make_strategy("rbf", parameters).minimum_nfe(problem(1, sampler=sampler).sampler)
    # Upstream stops one draw of each chain early, where the budget leaves no more than that.
    first = least + rest * chains + upstream
    made = problem(first, seed=seed, sampler=sampler, keep=2)
    planned = {**parameters, "plan_nfe": first}
    parts = [rounds("rbf", parameters, made)]
    spent = parts[0][-1].state.ledger.nfe_spent
    for draws in then:
        more = draws * chains + upstream
        parts.append(on("rbf", planned, made, parts[-1][-1].state, more))
        assert parts[-1][-1].state.ledger.nfe_spent == spent + draws * chains
        spent += draws * chains
    same(parts, rounds("rbf", planned, replace(made, nfe=spent + upstream)))


@settings(max_examples=100, deadline=None)
@given(
    chains=st.integers(1, 3),
    width=st.integers(1, 3),
    accept=st.sampled_from(["first", "best"]),
    finish=st.integers(0, 3),
    rest=st.integers(0, 20),
    then=st.integers(1, 20),
    stop=st.integers(1, 60),
    seed=seeds,
)
def test_an_extension_spends_what_it_is_given_and_loses_nothing(
    chains: int, width: int, accept: str, finish: int, rest: int, then: int, stop: int, seed: int
) -> None:
    parameters = {
        "chains": chains,
        "width": width,
        "accept": accept,
        "finish_steps": finish,
        "initial_noises": 3,
    }
    least = make_strategy("rbf", parameters).minimum_nfe(problem(1, sampler={"steps": STEPS}).sampler)
    made = problem(least + rest, seed=seed, sampler={"steps": STEPS})
    begun = rounds("rbf", parameters, made)[:stop]
    state = begun[-1].state
    more = max(made.nfe - state.ledger.nfe_spent, finish) + then
    done = on("rbf", {**parameters, "plan_nfe": made.nfe}, made, state, more)
    end = done[-1].state
    assert end.ledger.nfe_spent == end.ledger.nfe_budget == state.ledger.nfe_spent + more
    assert end.ledger.reward_calls == end.ledger.model_forwards == more
    assert end.best[0].reward >= state.best[0].reward
    got = candidates(begun) + candidates(done)
    assert all(a.nfe < b.nfe for a, b in pairwise(got))
    assert {c.parent for c in got} <= {c.nfe for c in got} | {None}
    draws = [(c.chain, c.level, c.draw) for c in got if c.level < STEPS]
    assert len(set(draws)) == len(draws)
    if finish:
        assert [c.level for c in candidates(done)[-finish:]] == [STEPS] * finish


def test_with_a_finish_the_draws_are_those_of_the_long_search() -> None:
    """The finish of the beginning is on top, and may be the best that is found."""
    parameters = {"chains": 2, "initial_noises": 3, "finish_steps": 2}
    made = problem(3 + 2 + 2 * 12, seed=5, sampler={"steps": STEPS})
    begun = rounds("rbf", parameters, made)
    planned = {**parameters, "plan_nfe": made.nfe}
    more = on("rbf", planned, made, begun[-1].state, 22)
    whole = rounds("rbf", planned, replace(made, nfe=made.nfe + 20))

    def draws(found: list[Candidate]) -> list[object]:
        return [(c.chain, c.level, c.draw, c.reward, c.x.tolist()) for c in found if c.level < STEPS]

    assert draws(candidates(begun) + candidates(more)) == draws(candidates(whole))


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"best_of_n", "zero_order", "rbf"}))
def test_a_search_whose_whole_budget_is_laid_out_cannot_go_on(name: str) -> None:
    made = problem(100)
    state = rounds(name, {}, made)[-1].state
    with pytest.raises(NotExtendableError, match=name):
        extended(replace(made, nfe=200), make_strategy(name), state)


@pytest.mark.parametrize("parameters", [{"neighbours": 3}, {"finish_steps": 2}])
def test_zero_order_cannot_go_on_after_a_part_of_a_generation_or_a_finish(parameters: dict[str, Any]) -> None:
    made = problem(100)
    state = rounds("zero_order", parameters, made)[-1].state
    with pytest.raises(NotExtendableError, match="zero_order"):
        extended(replace(made, nfe=200), make_strategy("zero_order", parameters), state)


def test_no_budget_shrinks() -> None:
    made = problem(100)
    begun = rounds("best_of_n", {}, made)
    with pytest.raises(ValueError, match="99 NFE are fewer than the 100"):
        extended(replace(made, nfe=99), make_strategy("best_of_n"), begun[0].state)
