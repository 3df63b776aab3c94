"""zero_order, sop and evolution: who breeds whom, at which times."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sampling.events import Candidate, Round
from sampling.grids import quadratic
from sampling.interpolants import LINEAR, VP
from sampling.kernels import step
from sampling.noise import AddressedNoise
from sampling.prediction import Prediction, predict
from sampling.strategies import make_strategy
from sampling.strategies.generations import renoised, visits
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import TARGET, candidates, problem, rounds


def scored(done: list[Round[Any]]) -> list[tuple[Candidate, ...]]:
    return [one.candidates for one in done if one.candidates]


def best_of(group: tuple[Candidate, ...]) -> Candidate:
    return max(group, key=lambda c: c.reward)


def few_step(x: Tensor, _t: Tensor) -> Tensor:
    """A velocity whose one-step prediction at t = 1 depends on x; the mixture's is its mean, whatever x."""
    return x - 2 * torch.tanh(x)


def one_step_reward(x: Tensor) -> float:
    return TARGET(2 * torch.tanh(x)[None]).rewards[0]


@pytest.mark.parametrize("patience", [None, 1, 2])
def test_zero_order_is_local_search_over_noises(patience: int | None) -> None:
    """A plain restatement, judged by the one-step prediction at t = 1."""
    parameters = {"steps": 1, "neighbours": 3, "correlation": 0.8, "patience": patience}
    made = replace(problem(40, seed=6), velocity=few_step)
    got = candidates(rounds("zero_order", parameters, made))
    noise, expected = AddressedNoise(6, (2,)), []
    pivot, best, failures = None, -math.inf, 0
    for first in range(0, 40, 3):
        draws = [noise.draw(0, 0, draw) for draw in range(first, min(first + 3, 40))]
        tried = draws if pivot is None else [0.8 * pivot + 0.6 * z for z in draws]
        rewards = [one_step_reward(x) for x in tried]
        expected += rewards
        if max(rewards) > best:
            pivot, best, failures = tried[rewards.index(max(rewards))], max(rewards), 0
        else:
            failures += 1
        if failures == patience:
            pivot, best, failures = None, -math.inf, 0
    assert [c.reward for c in got] == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == len(expected)
    assert (len({c.nfe for c in got if c.parent is None}) > 3) == (patience is not None)


def test_zero_order_judges_by_whole_runs() -> None:
    """Its first generation is the runs of base from its noises, and neighbours vary the best."""
    first, second, *_ = scored(rounds("zero_order", {"neighbours": 4}, problem(60)))
    for candidate in first:
        x = AddressedNoise(0, (2,)).draw(0, 0, candidate.draw)[None]
        for i in range(5):
            x = x - 0.2 * MIXTURE.velocity(x, torch.tensor([1 - 0.2 * i]))
        torch.testing.assert_close(candidate.prediction.x0, x[0], rtol=1e-4, atol=1e-5)
        assert (candidate.t, candidate.t_next) == (1.0, pytest.approx(0.2))
    assert {c.parent for c in second} == {best_of(first).nfe}


def test_zero_order_finishes_from_the_best_noise() -> None:
    got = candidates(rounds("zero_order", {"steps": 1, "finish_steps": 3}, problem(40)))
    noises, finish = got[:-3], got[-3:]
    assert {c.t_next for c in noises} == {1.0}
    assert finish[0].parent == best_of(tuple(noises)).nfe
    assert [c.t_next for c in finish] == pytest.approx([0.75, 0.5, 0.25])


@pytest.mark.parametrize(("nfe", "left"), [(40, 0), (43, 3)])
def test_what_pays_for_no_run_stays_unspent(nfe: int, left: int) -> None:
    made = problem(nfe)
    state = rounds("zero_order", {}, made)[-1].state
    assert state.ledger.nfe_left == left
    reason = make_strategy("zero_order").unspent(made, state)
    assert reason == ("zero_order had too little left for one more run of 5 NFE" if left else None)


def test_sop_goes_down_by_back_and_up_by_forward() -> None:
    done = scored(rounds("sop", {"steps": 3}, problem(160)))
    assert len(done) == 8
    for j, group in enumerate(done):
        start, end = 1 - 0.03 * j, max(0.19 - 0.03 * j, 0)
        assert [c.t for c in group] == pytest.approx([start] * len(group))
        assert [c.t_next for c in group] == pytest.approx([end + (start - end) / 3] * len(group))
    for group, following in pairwise(done):
        first, second = sorted(group, key=lambda c: -c.reward)[:2]
        turns = [first.nfe, second.nfe] * len(following)
        assert [c.parent for c in following] == turns[: len(following)]


def test_sop_adds_noise_as_the_forward_process_does() -> None:
    """From low up to high on the linear path: x' = a x + b z with a = (1 - high) / (1 - low)."""
    (parents, children, *_) = scored(rounds("sop", {"steps": 1, "paths": 1}, problem(32, seed=8)))
    low, high = 0.19, 0.97
    parent = best_of(parents).prediction
    x = (1 - low) * parent.x0 + low * parent.eps
    a = (1 - high) / (1 - low)
    z = AddressedNoise(8, (2,)).draw(0, 1, 0)
    torch.testing.assert_close(children[0].x, a * x + math.sqrt(high**2 - (a * low) ** 2) * z)


VP_SDE = {"interpolant": "vp", "kernel": "euler_maruyama", "grid": "quadratic"}


def test_a_solve_takes_the_kernel_the_path_and_the_grid_that_are_named() -> None:
    """A run of zero_order restated: each step has noise of its own, at address (step, 0, draw)."""
    made = problem(60, seed=4, sampler={"steps": 5})
    first, *_ = scored(rounds("zero_order", {"neighbours": 4, **VP_SDE}, made))
    walk, noise = made.sampler, AddressedNoise(4, (2,))
    assert (walk.interpolant, walk.kernel, walk.grid) == tuple(VP_SDE.values())
    for candidate in first:
        x = noise.draw(0, 0, candidate.draw)[None]
        for number, (r, r_next) in enumerate(pairwise(walk.times[:-1]), start=1):
            known = predict(MIXTURE.velocity, walk.path, x, [r])
            x = step(walk, x, known, [r], [r_next], noise.draw(number, 0, candidate.draw)[None])
        torch.testing.assert_close(candidate.x, x[0])
        assert candidate.t_next == walk.times[-2]


def test_sop_adds_noise_as_the_forward_process_of_its_path_does() -> None:
    """On VP from low up to high: x' = a x + b z with a = alpha(high) / alpha(low)."""
    parameters = {"steps": 1, "paths": 1, "interpolant": "vp"}
    (parents, children, *_) = scored(rounds("sop", parameters, problem(32, seed=8)))
    low, high = VP.at(0.19), VP.at(0.97)
    parent = best_of(parents).prediction
    x = low.alpha * parent.x0 + low.sigma * parent.eps
    a = high.alpha / low.alpha
    z = AddressedNoise(8, (2,)).draw(0, 1, 0)
    expected = a * x + math.sqrt(high.sigma**2 - (a * low.sigma) ** 2) * z
    torch.testing.assert_close(children[0].x, expected)


WAYS = [
    {"interpolant": "vp"},
    {"kernel": "euler_maruyama"},
    {"kernel": "ddim"},
    {"interpolant": "vp", "kernel": "euler_maruyama"},
    {"interpolant": "vp", "kernel": "ddim"},
]
"""On the even grid: the last step of the quadratic one is so long that its prediction is a mean of data."""


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_whatever_the_way_solves_end_where_the_data_is(way: dict[str, str]) -> None:
    made = problem(200 * 40, seed=5, velocity=MIXTURE.velocity, sampler={"steps": 40})
    parameters = {"correlation": 0.0, "neighbours": 200, **way}
    ends = torch.stack([c.prediction.x0 for c in candidates(rounds("zero_order", parameters, made))])
    truth = MIXTURE.draw(20_000, 0).float()
    for moment in (1, 2):
        values, expected = ends**moment, (truth**moment).mean(0)
        errors = (values.mean(0) - expected).abs() / (values.std(0) / len(values) ** 0.5)
        assert errors.max() < 4


def test_evolution_breeds_the_elites_of_all_generations() -> None:
    parameters = {"generations": 4, "elites": 3, "finish_steps": 0}
    done = scored(rounds("evolution", parameters, problem(38)))
    assert [len(group) for group in done] == [10, 10, 9, 9]
    assert [{c.t for c in group} for group in done] == [{1.0}, {0.75}, {0.5}, {0.25}]
    met: list[Candidate] = []
    for group, following in pairwise(done):
        met += group
        elites = [c.nfe for c in sorted(met, key=lambda c: -c.reward)[:3]]
        assert [c.parent for c in following] == (elites * 4)[: len(following)]


def test_renoising_keeps_the_data_and_a_part_of_the_noise() -> None:
    parent = candidates(rounds("base", {}, problem(5)))[0]
    generator = torch.Generator().manual_seed(0)
    x0, eps, z = torch.randn(3, 4000, 2, generator=generator)
    parents = [
        replace(parent, prediction=Prediction(data, noise)) for data, noise in zip(x0, eps, strict=True)
    ]
    noise = (renoised(LINEAR, parents, 0.4, 0.7, z) - 0.6 * x0) / 0.4
    assert noise.std().item() == pytest.approx(1, abs=0.03)
    assert (noise * eps).mean().item() == pytest.approx(0.7, abs=0.03)
    torch.testing.assert_close(renoised(LINEAR, parents, 0.4, 1.0, z), 0.6 * x0 + 0.4 * eps)
    there = VP.at(0.4)
    torch.testing.assert_close(
        renoised(VP, parents, 0.4, 1.0, z), there.alpha * x0 + there.sigma * eps, msg="on that path"
    )


def test_visits_stop_one_step_before_the_end() -> None:
    made = problem(8, sampler={"steps": 5, "interpolant": "linear", "grid": "linear"})
    assert visits(made, 1.0, 0.2, 4) == pytest.approx((1.0, 0.8, 0.6, 0.4))
    assert visits(made, 0.5, 0.0, 1) == (0.5,)


def test_on_another_grid_a_part_of_the_way_goes_at_its_pace() -> None:
    made = problem(8, sampler={"steps": 4, "grid": "quadratic"})
    whole = quadratic(4)
    assert visits(made, 1.0, 0.0, 4) == whole[:-1]
    assert visits(made, whole[1], 0.0, 3) == pytest.approx(whole[1:-1])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("zero_order", {"steps": 0}),
        ("zero_order", {"neighbours": 0}),
        ("zero_order", {"patience": 0}),
        ("zero_order", {"correlation": 1.0}),
        ("zero_order", {"finish_steps": -1}),
        ("sop", {"paths": 0}),
        ("sop", {"steps": 0}),
        ("sop", {"forward": 0.9}),
        ("sop", {"back": 0.785}),
        ("sop", {"back": 1.0}),
        ("evolution", {"generations": 0}),
        ("evolution", {"elites": 0}),
        ("evolution", {"correlation": -0.1}),
        ("evolution", {"steps": 0}),
        ("evolution", {"finish_steps": -1}),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_strategy(name, wrong)
