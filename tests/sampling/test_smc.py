"""smc: plain sampling where it does not steer, and unbiased where it does."""

import math
from dataclasses import replace
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

import pytest

from sampling.events import Decision
from sampling.problem import Problem
from sampling.strategies import make_strategy
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, problem, rounds

POTENTIALS = ["difference", "max", "sum", "reward"]
WALK = {"interpolant": "vp", "kernel": "euler_maruyama", "grid": "quadratic"}


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_without_steering_it_is_plain_sampling(potential: str, ess_threshold: float) -> None:
    parameters = {"potential": potential, "inverse_temperature": 0.0, "ess_threshold": ess_threshold}
    made = problem(35, seed=4)
    got = candidates(rounds("smc", {**parameters, "finish_steps": 0}, made))[-7:]
    plain = candidates(rounds("best_of_n", {**WALK, "batch": 7}, made))
    assert [c.x.tolist() for c in got] == [c.x.tolist() for c in plain]
    assert [c.reward for c in got] == [c.reward for c in plain]


def estimate(made: Problem, parameters: dict[str, Any]) -> float:
    """The mean weight of the particles at the end."""
    state = rounds("smc", {"finish_steps": 0, **parameters}, made)[-1].state
    return mean(math.exp(particle.log_weight) for particle in state.particles)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_the_mean_weight_estimates_the_mean_of_the_tilt(potential: str) -> None:
    """E[exp(lambda r)] over plain samples, without bias, however often it resamples and among how many."""
    tilt, seeds = 0.3, range(250)
    # 18 NFE over 4 levels: 5, 5, 4 and 4 particles.
    worlds = [replace(problem(18, seed, sampler={"steps": 4}), velocity=MIXTURE.velocity) for seed in seeds]
    steering = {"potential": potential, "inverse_temperature": tilt, "ess_threshold": 1.0}
    steered = [estimate(made, steering) for made in worlds]
    plain = [
        math.exp(tilt * run.reward)
        for made in worlds
        for run in candidates(rounds("best_of_n", WALK, replace(made, seed=made.seed + 1000)))
    ]
    error = math.hypot(stdev(steered) / math.sqrt(len(steered)), stdev(plain) / math.sqrt(len(plain)))
    assert mean(steered) == pytest.approx(mean(plain), abs=4 * error)
    assert error < 0.05 * mean(plain)


def test_a_threshold_of_zero_never_resamples() -> None:
    got = candidates(rounds("smc", {"ess_threshold": 0.0, "finish_steps": 0}, problem(30)))
    by_nfe = {c.nfe: c for c in got}
    assert {c.decision for c in got} <= {Decision.INITIAL, Decision.IMPROVED, Decision.KEPT}
    assert all(c.parent is None or by_nfe[c.parent].chain == c.chain for c in got)


def test_strong_steering_copies_the_best() -> None:
    done = rounds("smc", {"potential": "reward", "inverse_temperature": 1e6, "finish_steps": 0}, problem(30))
    for one, following in pairwise(done):
        best = max(one.candidates, key=lambda c: c.reward)
        assert {c.parent for c in following.candidates} == {best.nfe}
        assert one.levels[0].candidate == best.nfe


def test_the_remainder_gives_the_first_levels_a_particle_more() -> None:
    done = rounds("smc", {"finish_steps": 3}, problem(30))
    assert [len(one.candidates) for one in done] == [6, 6, 5, 5, 5, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"potential": "min"},
        {"inverse_temperature": -1.0},
        {"inverse_temperature": math.inf},
        {"ess_threshold": 1.5},
        {"finish_steps": -1},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_strategy("smc", wrong)
