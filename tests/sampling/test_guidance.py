"""Reward-gradient guidance against distributions whose tilting is known in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sampling.errors import RewardError
from sampling.guidance import differentiable, guided
from sampling.interpolants import INTERPOLANTS
from sampling.prediction import Prediction, predict
from sampling.problem import Problem, Scores, Slope
from sampling.sampler import KERNELS, Sampler
from tests.sampling.oracle import MIXTURE, Mixture, row_by_row
from tests.sampling.worlds import TARGET, candidates, problem, rounds

TIMES = [1.0, 0.9, 0.5, 0.2, 0.03]
MEAN = (0.0, 0.3)
GAUSSIAN = Mixture(weights=(1.0,), means=(MEAN,), deviations=(1.0,))
paths = pytest.mark.parametrize("name", sorted(INTERPOLANTS))


def latents() -> Tensor:
    return torch.randn(len(TIMES), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def coefficient(name: str, of: str) -> Tensor:
    return torch.tensor([[getattr(INTERPOLANTS[name].at(r), of)] for r in TIMES], dtype=torch.float64)


def tilted(strength: float) -> Mixture:
    """exp(-strength |x - TARGET|^2) times the Gaussian, normalised."""
    precision = 1 + 2 * strength
    mean = [(m + 2 * strength * y) / precision for m, y in zip(MEAN, TARGET.target, strict=True)]
    return Mixture(weights=(1.0,), means=((mean[0], mean[1]),), deviations=(precision**-0.5,))


@paths
def test_a_linear_reward_is_followed_exactly_on_data_of_unit_variance(name: str) -> None:
    """exp(2 a . x) N(m, 1) is N(m + 2 a, 1): the guided prediction is that distribution's own."""
    path, x = INTERPOLANTS[name], latents()
    push = 2 * torch.tensor([[0.7, -1.1]], dtype=torch.float64).expand_as(x)
    got = guided(path, predict(GAUSSIAN.velocity, path, x, TIMES), TIMES, push)
    shifted = Mixture(weights=(1.0,), means=((MEAN[0] + 1.4, MEAN[1] - 2.2),), deviations=(1.0,))
    truth = shifted.posterior(x, coefficient(name, "alpha"), coefficient(name, "sigma"))
    torch.testing.assert_close(got.x0, truth.x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.eps, truth.eps, rtol=1e-9, atol=1e-9)


@paths
def test_another_reward_is_followed_to_first_order(name: str) -> None:
    path, x = INTERPOLANTS[name], latents()

    def error(strength: float) -> float:
        prediction = predict(GAUSSIAN.velocity, path, x, TIMES)
        _, gradient = TARGET.slope(prediction.x0)
        got = guided(path, prediction, TIMES, strength * gradient)
        alpha, sigma = coefficient(name, "alpha"), coefficient(name, "sigma")
        truth = tilted(strength).posterior(x, alpha, sigma)
        return (got.x0 - truth.x0).abs().max().item()

    assert error(0.02) < 0.01
    assert error(0.02) / error(0.01) == pytest.approx(4, abs=0.2)


@paths
def test_data_and_noise_still_make_up_the_latent(name: str) -> None:
    path, x = INTERPOLANTS[name], latents()
    got = guided(path, predict(MIXTURE.velocity, path, x, TIMES), TIMES, 5 * torch.ones_like(x))
    whole = coefficient(name, "alpha") * got.x0 + coefficient(name, "sigma") * got.eps
    torch.testing.assert_close(whole, x, rtol=1e-12, atol=1e-12)


def crowd(mixture: Mixture, strength: float, steps: int, **walk: Any) -> Tensor:  # noqa: ANN401
    """Samples [4000, 2], guided to TARGET: one latent that is a crowd of points, walked down by `base`."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return mixture.velocity(x[0], t.expand(x.shape[1]))[None]

    def slope(x0: Tensor) -> tuple[Scores, Tensor]:
        # One row, so one reward, the sum over the crowd: the gradient by each point is its own.
        return Scores([0.0], [{}], None), -2 * (x0 - torch.tensor(TARGET.target))

    made = Problem(
        velocity=velocity,
        score=lambda _: Scores([0.0], [{}], None),
        slope=slope,
        shape=(4000, 2),
        seed=1,
        nfe=steps,
        sampler=Sampler(steps=steps, grid="linear", reward_guidance=strength),
    )
    (end,) = candidates(rounds("base", walk, made))
    return end.prediction.x0.double()


def deviations(x: Tensor, truth: Mixture) -> float:
    """How many standard errors the worst of means and variances of samples [b, 2] is from a Gaussian's."""
    (mean,), (deviation,) = truth.means, truth.deviations
    of_means = (x.mean(0) - torch.tensor(mean)).abs() / (x.std(0) / math.sqrt(len(x)))
    of_variances = (x.var(0) / deviation**2 - 1).abs() / math.sqrt(2 / len(x))
    return torch.cat([of_means, of_variances]).max().item()


@paths
@pytest.mark.parametrize("kernel", KERNELS)
def test_guided_samples_are_those_of_the_tilted_distribution(name: str, kernel: str) -> None:
    """Means and variances over 4,000 samples, within 4.5 standard errors; the untilted truth is far out."""
    x = crowd(GAUSSIAN, 0.05, 500, kernel=kernel, interpolant=name)
    assert deviations(x, tilted(0.05)) < 4.5
    assert deviations(x, GAUSSIAN) > 5.5


def test_guidance_moves_samples_of_a_mixture_to_the_reward() -> None:
    """Its components are narrower than unit variance: the tilt is not exact, only its direction is."""
    distances = [
        (crowd(MIXTURE, strength, 50) - torch.tensor(TARGET.target)).square().sum(1).mean().item()
        for strength in (0.0, 0.1, 0.3)
    ]
    assert distances[0] > 1.2 * distances[1] > 1.5 * distances[2]


def test_the_verdict_is_on_the_models_own_prediction() -> None:
    made = problem(40, sampler={"steps": 5, "reward_guidance": 0.3})
    for candidate in candidates(rounds("rbf", {"initial_noises": 5}, made)):
        velocity = row_by_row(MIXTURE.velocity)
        own = predict(velocity, made.sampler.path, candidate.x[None], [candidate.t_next])
        scores, gradient = TARGET.slope(own.x0)
        assert candidate.reward == scores.rewards[0]
        assert scores.images is not None
        assert candidate.image is not None
        assert torch.equal(candidate.image, scores.images[0])
        onward = guided(made.sampler.path, own, [candidate.t_next], 0.3 * gradient)
        torch.testing.assert_close(candidate.prediction.x0, onward.x0[0])


def refuses(_: Tensor) -> tuple[Scores, Tensor]:
    raise AssertionError("the gradient was asked for")


@pytest.mark.parametrize("name", ["base", "rbf", "sop"])
def test_without_guidance_no_gradient_is_asked_for(name: str) -> None:
    assert rounds(name, {}, problem(90, slope=refuses))[-1].state.ledger.gradients == 0


def test_guidance_needs_a_slope() -> None:
    with pytest.raises(ValueError, match="needs the slope"):
        problem(40, sampler={"reward_guidance": 1.0}, slope=None)


def broken(value: float) -> Slope:
    def slope(x0: Tensor) -> tuple[Scores, Tensor]:
        return TARGET(x0), torch.full_like(x0, value)

    return slope


@pytest.mark.parametrize(
    ("slope", "complaint"),
    [
        (broken(math.nan), "gradient of a reward"),
        (broken(math.inf), "gradient of a reward"),
        (lambda x0: (TARGET(x0), torch.zeros(2)), "gradient of a reward"),
        (lambda x0: (Scores([math.nan] * len(x0), [{}] * len(x0), None), x0), "the reward is nan"),
    ],
    ids=["nan", "infinite", "shape", "reward"],
)
@pytest.mark.parametrize("name", ["base", "rbf"])
def test_what_cannot_guide_ends_the_search(name: str, slope: Slope, complaint: str) -> None:
    made = problem(60, sampler={"steps": 5, "reward_guidance": 1.0}, slope=slope)
    with pytest.raises(RewardError, match=complaint):
        rounds(name, {}, made)


def test_gradients_flow_within_inference_mode() -> None:
    with torch.inference_mode():
        x0 = torch.ones(2, 3)
        with differentiable(x0) as leaf:
            [gradient] = torch.autograd.grad((leaf**2).sum(), leaf)
        assert torch.is_inference_mode_enabled()
        assert not Prediction(x0 + gradient, x0).x0.requires_grad
    assert torch.equal(gradient, torch.full((2, 3), 2.0))
