"""Mode upstream against recordings of the authors' program: same noises, same decisions (decision 0030)."""

from functools import partial
from itertools import groupby

import pytest
import torch

from sampling.events import Candidate, Decision
from sampling.search import search
from sampling.state import State
from sampling.strategies import make_strategy
from tests.sampling.recordings import Case, Drawn, load

CASES = load()
# What their pool choice makes of rewards whose exponential is zero; ours takes the best.
COMPARED = [case for case in CASES if case.reward != "far"]
# Their coefficients are float32, ours float64: on the VP path at t = 1 the data are 1/150 of the latent.
close = partial(pytest.approx, rel=2e-4, abs=2e-4)


def replay(case: Case) -> tuple[list[Candidate], State]:
    """The same problem, searched by us."""
    parameters = {"mode": "upstream", "chains": case.chains, "initial_noises": case.initial_noises}
    done = list(search(case.problem(), make_strategy("rbf", parameters)))
    return [candidate for one in done for candidate in one.candidates], done[-1].state


def starts(case: Case, got: list[Candidate]) -> list[int]:
    """Which of its initial noises each chain drew its first children from."""
    by_nfe = {candidate.nfe: candidate for candidate in got}
    firsts = [next(c for c in got if c.chain == chain and c.level == 1) for chain in range(case.chains)]
    return [by_nfe[first.parent or 0].draw for first in firsts]


def levels(case: Case, got: list[Candidate], chain: int) -> list[Drawn]:
    """What the chain did at each level, as a Case tells it."""
    own = [c for c in got if c.chain == chain and c.level > 0]
    last = case.problem().sampler.steps - 1
    found: list[Drawn] = []
    for level, group in groupby(own, key=lambda c: c.level):
        drawn = list(group)
        rewards = [c.reward for c in drawn]
        if level == last:
            found.append((None, rewards, "budget", None))
            continue
        end = {Decision.IMPROVED: "improved", Decision.LEVEL_BEST: "quota"}[drawn[-1].decision]
        # Who the next level's children were drawn from; strictly better, so the first among equals.
        parent = next(c.parent for c in own if c.level == level + 1)
        found.append((drawn[0].quota, rewards, end, next(c.draw for c in drawn if c.nfe == parent)))
    return found


def met(case: Case) -> list[float]:
    """Every reward that the program saw."""
    drawn = [rewards for chain in case.levels for _, rewards, _, _ in chain]
    return [reward for rewards in (*case.pool, *drawn) for reward in rewards]


def returned(case: Case) -> float:
    """The reward of what it gave back: always of a chain's last level."""
    chain, _, draw = case.pick
    return case.levels[chain][-1][1][draw]


def test_the_recordings_cover_what_they_should() -> None:
    samplers = [case.problem().sampler for case in COMPARED]
    assert len(COMPARED) >= 50
    assert {case.chains for case in COMPARED} >= {1, 2, 3, 4, 5}
    assert {sampler.grid for sampler in samplers} == {"quadratic", "linear"}
    assert {sampler.interpolant for sampler in samplers} == {"vp", "linear"}
    assert {case.reward for case in COMPARED} == {"near", "waves", "count", "flat"}
    ends = [end for case in COMPARED for chain in case.levels for _, _, end, _ in chain]
    assert all(ends.count(end) > 100 for end in ("improved", "quota", "budget"))
    assert [case.spent for case in COMPARED if case.nfe == 500] == [498] * 3
    assert sum(returned(case) < max(met(case)) for case in COMPARED) == 20


@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case.name)
def test_upstream_decides_as_the_authors_program(case: Case) -> None:
    got, state = replay(case)
    pools = [[c.reward for c in got if c.level == 0 and c.chain == chain] for chain in range(case.chains)]
    for ours, theirs in zip(pools, case.pool, strict=True):
        assert ours == close(theirs)
    assert starts(case, got) == case.starts
    for chain, recorded in enumerate(case.levels):
        ours = levels(case, got, chain)
        assert [(q, len(rs), end, to) for q, rs, end, to in ours] == [
            (q, len(rs), end, to) for q, rs, end, to in recorded
        ]
        for (_, rewards, _, _), (_, theirs, _, _) in zip(ours, recorded, strict=True):
            assert rewards == close(theirs)
    assert state.ledger.nfe_spent == case.spent
    best = state.best[0]
    assert (best.chain, best.level, best.draw) == case.pick
    assert torch.allclose(best.prediction.x0.flatten(), torch.tensor(case.x0), atol=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case.reward == "far"], ids=lambda case: case.name)
def test_where_every_exponential_is_zero_we_still_take_the_best_noise(case: Case) -> None:
    """What differs: the program chooses by exp(reward) in float64, of equals the first."""
    assert case.starts == [0] * case.chains
    got, _ = replay(case)
    best = [max(range(len(pool)), key=pool.__getitem__) for pool in case.pool]
    assert starts(case, got) == best != case.starts
