"""svdd and code: which child a chain goes on from, and how the budget is laid out over blocks."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.events import Candidate, Decision, Round
from sampling.noise import AddressedNoise
from sampling.strategies import make_strategy
from sampling.strategies.svdd import Svdd
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, facts, problem, rounds


def of_chain(one: Round[Any], chain: int) -> list[Candidate]:
    return [c for c in one.candidates if c.chain == chain]


@pytest.mark.parametrize(("name", "block"), [("svdd", 1), ("code", 2), ("code", 3)])
def test_a_chain_goes_on_from_its_best_child(name: str, block: int) -> None:
    parameters = {"chains": 3, "finish_steps": 0} | ({"block": block} if name == "code" else {})
    done = [one for one in rounds(name, parameters, problem(75, seed=2)) if one.candidates]
    levels = sorted({min(start + block, 5) - 1 for start in range(0, 5, block)})
    assert [{c.level for c in one.candidates} for one in done] == [{level} for level in levels]
    for one, following in pairwise(done):
        for chain in range(3):
            best = max(of_chain(one, chain), key=lambda c: c.reward)
            assert {c.parent for c in of_chain(following, chain)} == {best.nfe}
            assert one.levels[chain].candidate == best.nfe

    before = -math.inf
    for one in done:
        for candidate in one.candidates:
            best = max(of_chain(one, candidate.chain), key=lambda c: c.reward)
            moved = Decision.IMPROVED if candidate.reward > before else Decision.KEPT
            expected = moved if candidate is best else Decision.REJECTED
            assert candidate.decision is (expected if candidate.parent else Decision.INITIAL)
        before = one.state.best_reward


def test_each_continuation_has_noise_of_its_own_at_every_level() -> None:
    """DDIM at eta 1 on the linear path: from t = 1, x' = (1 - t') x0 + t' z."""
    walk = {"interpolant": "linear", "kernel": "ddim", "grid": "linear", "steps": 5}
    got = candidates(rounds("code", {"finish_steps": 0}, problem(40, seed=3, sampler=walk)))
    noise = AddressedNoise(3, (2,))
    for candidate in (c for c in got if c.level == 1):
        x = noise.draw(candidate.chain, 0, candidate.draw)[None]
        x0 = x - MIXTURE.velocity(x, torch.tensor([1.0]))
        z = noise.draw(candidate.chain, 1, candidate.draw)
        torch.testing.assert_close(candidate.x, (0.2 * x0 + 0.8 * z)[0])


def test_blocks_of_one_level_are_svdd() -> None:
    made = problem(67, seed=3)
    svdd = candidates(rounds("svdd", {"chains": 3}, made))
    code = candidates(rounds("code", {"chains": 3, "block": 1}, made))
    assert [facts(c) for c in svdd] == [facts(c) for c in code]


def test_one_block_is_best_of_n() -> None:
    done = rounds("code", {"chains": 1, "block": 9, "finish_steps": 0}, problem(43))
    assert [len(one.candidates) for one in done] == [0, 0, 0, 0, 8]
    assert {c.parent for c in candidates(done)} == {None}


@settings(max_examples=40, deadline=None)
@given(chains=st.integers(1, 3), more=st.integers(0, 40), finish_steps=st.integers(0, 3))
def test_svdd_spends_the_budget_exactly(chains: int, more: int, finish_steps: int) -> None:
    done = rounds(
        "svdd", {"chains": chains, "finish_steps": finish_steps}, problem(5 * chains + finish_steps + more)
    )
    assert done[-1].state.ledger.nfe_left == 0
    counts = [len(of_chain(one, chain)) for one in done[:5] for chain in range(chains)]
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) <= 1


@settings(max_examples=40, deadline=None)
@given(block=st.integers(1, 6), more=st.integers(0, 40))
def test_code_leaves_less_than_a_block(block: int, more: int) -> None:
    done = rounds("code", {"block": block}, problem(14 + more))
    assert done[-1].state.ledger.nfe_left < block


@pytest.mark.parametrize("temperature", [0.3, 1.0, 30.0])
def test_a_child_is_drawn_by_its_weight(temperature: float) -> None:
    strategy = Svdd(temperature=temperature)
    children = [
        replace(c, reward=reward)
        for c, reward in zip(candidates(rounds("base", {}, problem(5))) * 3, [-1.0, -0.5, 0.0], strict=True)
    ]
    weights = [math.exp(c.reward / temperature) for c in children]
    draws = 2000
    taken = Counter(strategy.choose(problem(1, seed=seed), children).reward for seed in range(draws))
    for child, weight in zip(children, weights, strict=True):
        share = weight / sum(weights)
        assert taken[child.reward] / draws == pytest.approx(
            share, abs=4.5 * math.sqrt(share * (1 - share) / draws) + 1e-9
        )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("svdd", {"chains": 0}),
        ("svdd", {"finish_steps": -1}),
        ("svdd", {"temperature": -0.1}),
        ("svdd", {"temperature": math.nan}),
        ("code", {"block": 0}),
        ("code", {"chains": 0}),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        make_strategy(name, wrong)
