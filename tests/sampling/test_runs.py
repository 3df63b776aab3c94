"""base and best_of_n: what a run is, what N is, what stays unspent."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.errors import BudgetTooSmallError
from sampling.noise import AddressedNoise
from sampling.strategies import make_strategy
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, facts, problem, rounds


def test_base_is_eulers_method_on_the_models_own_path() -> None:
    (only,) = candidates(rounds("base", {}, problem(7, seed=3)))
    x = AddressedNoise(3, (2,)).draw(0, 0, 0)[None]
    for i in range(5):
        x = x - 0.2 * MIXTURE.velocity(x, torch.tensor([1 - 0.2 * i]))
    torch.testing.assert_close(only.prediction.x0, x[0], rtol=1e-5, atol=1e-5)


def test_each_step_of_a_stochastic_run_has_noise_of_its_own() -> None:
    """DDIM at eta 1 on the linear path: from t = 1, x' = (1 - t') x0 + t' z."""
    walk = {"kernel": "ddim", "steps": 2}
    *_, last = candidates(rounds("best_of_n", {**walk, "batch": 3}, problem(6, seed=3)))
    noise = AddressedNoise(3, (2,))
    x = noise.draw(2, 0, 0)[None]
    x0 = x - MIXTURE.velocity(x, torch.tensor([1.0]))
    torch.testing.assert_close(last.x, (0.5 * x0 + 0.5 * noise.draw(2, 1, 0))[0])


def test_base_says_what_it_left() -> None:
    made = problem(12)
    done = rounds("base", {}, made)
    assert done[-1].state.ledger.nfe_spent == 5
    assert make_strategy("base").unspent(made, done[-1].state) == "base made 1 run of 5 NFE"


@settings(max_examples=25, deadline=None)
@given(nfe=st.integers(1, 60), steps=st.integers(1, 6), batch=st.integers(1, 9), largest=st.integers(1, 9))
def test_best_of_n_makes_every_run_that_the_budget_pays_for(
    nfe: int, steps: int, batch: int, largest: int
) -> None:
    made = problem(nfe, max_batch=largest, sampler={"steps": steps})
    strategy = make_strategy("best_of_n", {"batch": batch})
    if nfe < steps:
        with pytest.raises(BudgetTooSmallError, match=f"at least {steps} NFE"):
            rounds("best_of_n", {"batch": batch}, made)
        return
    done = rounds("best_of_n", {"batch": batch}, made)
    state, got = done[-1].state, candidates(done)
    assert [c.chain for c in got] == list(range(nfe // steps))
    assert state.ledger.nfe_spent == nfe // steps * steps
    assert state.ledger.reward_calls == len(got)
    assert (strategy.unspent(made, state) is None) == (nfe % steps == 0)
    assert state.best[0].reward == state.best_reward == max(c.reward for c in got)
    assert all(a.nfe < b.nfe for a, b in pairwise(got))
    alone = candidates(rounds("best_of_n", {"batch": 1}, made))
    assert [(c.reward, c.x.tolist()) for c in alone] == [(c.reward, c.x.tolist()) for c in got]


@pytest.mark.parametrize("kernel", ["ode", "euler_maruyama", "ddim"])
@pytest.mark.parametrize("interpolant", ["linear", "vp"])
def test_the_first_run_is_bases(kernel: str, interpolant: str) -> None:
    walk = {"kernel": kernel, "interpolant": interpolant, "grid": "quadratic", "steps": 4}
    (base,) = candidates(rounds("base", walk, problem(4)))
    first, *_ = candidates(rounds("best_of_n", {**walk, "batch": 1}, problem(20)))
    assert facts(base) == facts(first)


def test_a_run_has_its_own_steps() -> None:
    done = rounds("best_of_n", {"steps": 2}, problem(20))
    assert len(candidates(done)) == 10


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        make_strategy("best_of_n", {"batch": 0})
    with pytest.raises(ValueError, match="steps"):
        make_strategy("base", {"steps": 0})
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        make_strategy("base", {"interpolant": "linera"})
