"""The rollover of one chain, against a plain restatement of the rule, on rewards out of a hat."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampling.events import Candidate, Decision, Level
from sampling.ledger import Ledger
from sampling.state import Address, State, evaluate
from sampling.strategies.rollover import Accept, Chain, Plan, start_chain, take
from tests.sampling.worlds import problem

_, (BLANK,) = evaluate(
    problem(1),
    State(ledger=Ledger(1)),
    torch.zeros(1, 2),
    [Address(chain=0, level=0, draw=0, t=1.0, t_next=1.0)],
)


def child(nfe: int, reward: float, level: int = 0) -> Candidate:
    return replace(BLANK, nfe=nfe, reward=reward, level=level)


def plan(base_quota: int, levels: int, extra: int) -> Plan:
    return Plan(pool=1, base_quota=base_quota, shares=(base_quota * levels + extra,), last_level=levels - 1)


Trace = list[tuple[int, int, Decision]]


def run(
    laid_out: Plan, rewards: list[float], width: int, accept: Accept = "first"
) -> tuple[Trace, list[Level]]:
    """(level, quota, decision) of every child, and the levels; rewards depend on (level, draw)."""
    chain = start_chain(laid_out, 0, child(1, 0.0))
    trace: Trace = []
    levels: list[Level] = []
    spent = 0
    while chain.share:
        numbers = range(chain.draws, chain.draws + min(width, chain.room))
        own = [
            child(spent + i + 2, reward_at(rewards, chain, draw), chain.level + 1)
            for i, draw in enumerate(numbers)
        ]
        moved, decisions, level = take(laid_out, chain, own, accept)
        trace += [(chain.level, chain.quota, decision) for decision in decisions]
        levels += [level] if level else []
        assert moved.best_reward >= chain.best_reward
        assert moved.share == chain.share - len(own)
        spent += len(own)
        chain = moved
    assert chain.level == laid_out.last_level
    return trace, levels


def reward_at(rewards: list[float], chain: Chain, draw: int) -> float:
    return rewards[(chain.level * 31 + draw) % len(rewards)]


def restated(base_quota: int, levels: int, extra: int, rewards: list[float]) -> Trace:
    """The rule of the design, step 3, one draw at a time."""
    trace: Trace = []
    best, carried, left = 0.0, 0, base_quota * levels + extra
    for level in range(levels):
        last = level == levels - 1
        quota = left if last else base_quota + carried
        for draw in range(quota):
            reward = rewards[(level * 31 + draw) % len(rewards)]
            left -= 1
            if reward > best:
                best = reward
                trace.append((level, quota, Decision.IMPROVED))
                if not last:
                    carried = quota - draw - 1
                    break
            elif draw == quota - 1 and not last:
                trace.append((level, quota, Decision.LEVEL_BEST))
                carried = 0
            else:
                trace.append((level, quota, Decision.REJECTED))
    return trace


layouts = {
    "base_quota": st.integers(1, 6),
    "levels": st.integers(1, 6),
    "extra": st.integers(0, 5),
    "rewards": st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=60),
}


@given(**layouts)
def test_one_draw_at_a_time_follows_the_rule(
    base_quota: int, levels: int, extra: int, rewards: list[float]
) -> None:
    trace, _ = run(plan(base_quota, levels, extra), rewards, width=1)
    assert trace == restated(base_quota, levels, extra, rewards)
    assert len(trace) == base_quota * levels + extra


@given(width=st.integers(2, 5), **layouts)
def test_ordered_width_decides_as_one_draw_at_a_time(
    width: int, base_quota: int, levels: int, extra: int, rewards: list[float]
) -> None:
    laid_out = plan(base_quota, levels, extra)
    narrow, _ = run(laid_out, rewards, width=1)
    wide, _ = run(laid_out, rewards, width=width)
    assert len(wide) == len(narrow)
    used = [entry for entry in wide if entry[2] is not Decision.UNUSED]
    for one, other in zip(used, narrow, strict=False):
        # What was evaluated and not used can only shrink a quota; until then all is the same.
        if one != other:
            assert one[1] < other[1]
            assert len(used) < len(wide)
            break


@given(width=st.integers(1, 5), accept=st.sampled_from(["first", "best"]), **layouts)
def test_levels_account_for_every_draw(
    width: int, accept: Accept, base_quota: int, levels: int, extra: int, rewards: list[float]
) -> None:
    trace, done = run(plan(base_quota, levels, extra), rewards, width, accept)
    assert [level.level for level in done] == list(range(1, levels + 1))
    unused = sum(decision is Decision.UNUSED for *_, decision in trace)
    assert sum(level.draws for level in done) == len(trace) - unused
    assert all(1 <= level.draws <= level.quota for level in done)
    carried = [0, *(level.quota - level.draws for level in done[:-1])]
    assert all(0 <= level.carried <= left for level, left in zip(done, carried, strict=True))
    rewards_met = [level.best_reward for level in done]
    assert rewards_met == sorted(rewards_met)


def test_the_unused_rolls_over() -> None:
    laid_out = plan(base_quota=5, levels=3, extra=1)
    chain = start_chain(laid_out, 0, child(1, 0.0))
    chain, decisions, done = take(laid_out, chain, [child(2, 1.0, 1)], "first")
    assert (decisions, chain.level, chain.carried, chain.quota) == ([Decision.IMPROVED], 1, 4, 9)
    assert done is not None
    assert (done.draws, done.quota) == (1, 5)
    for nfe in range(3, 12):
        chain, decisions, done = take(laid_out, chain, [child(nfe, -nfe / 10, 2)], "first")
    assert (decisions, chain.level, chain.carried, chain.current.nfe) == ([Decision.LEVEL_BEST], 2, 0, 3)
    assert chain.quota == chain.share == 6


@pytest.mark.parametrize(("accept", "taken", "carried"), [("first", 3, 3), ("best", 4, 2)])
def test_first_takes_the_first_and_best_the_best(accept: Accept, taken: int, carried: int) -> None:
    laid_out = plan(base_quota=5, levels=2, extra=0)
    chain = start_chain(laid_out, 0, child(1, 0.0))
    children = [child(2, -1.0, 1), child(3, 1.0, 1), child(4, 2.0, 1)]
    chain, decisions, _ = take(laid_out, chain, children, accept)
    assert (chain.current.nfe, chain.carried) == (taken, carried)
    assert decisions.count(Decision.UNUSED) == (1 if accept == "first" else 0)
    assert decisions[taken - 2] is Decision.IMPROVED
