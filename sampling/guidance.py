"""Reward-gradient guidance: latents move by the score of exp(strength R) p instead of that of p.

To first order in the strength, tilting shifts the expected data by the covariance it has given the latent
(docs/maths.md has the derivation):

    E'[x0 | x] = x0 + strength C grad R(x0),    C = Cov[x0 | x]

C is taken as that of data of unit variance, sigma^2 / (alpha^2 + sigma^2) in every direction (Song et al.,
"Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023). So the gradient goes through the
reward and the decoder, and not through the model as in diffusion posterior sampling (arXiv 2209.14687).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sampling.errors import RewardError
from sampling.interpolants import Coefficients, Interpolant
from sampling.prediction import Prediction, column
from sampling.problem import Problem, Scores


def judge(problem: Problem, prediction: Prediction, r: Sequence[float]) -> tuple[Scores, Prediction]:
    """The verdict on what the model predicts, and the prediction that the search moves on by.

    Without guidance the two are about the same prediction. With guidance the verdict, and so every picture
    and every result, stays that on the model's own prediction.

    Args:
        problem: its sampler says how strong guidance is.
        prediction: the model's, [b, *latent].
        r: b times in (0, 1] on the sampler's path.

    Raises:
        RewardError: for a gradient that is not finite.
    """
    slope = problem.slope if problem.guided else None
    if slope is None:
        return problem.score(prediction.x0), prediction
    scores, gradient = slope(prediction.x0)
    if gradient.shape != prediction.x0.shape or not torch.isfinite(gradient).all():
        raise RewardError("the gradient of a reward must be finite numbers, one for each of the latent's")
    return scores, guided(problem.sampler.path, prediction, r, problem.sampler.reward_guidance * gradient)


def guided(path: Interpolant, prediction: Prediction, r: Sequence[float], push: Tensor) -> Prediction:
    """The prediction under the tilted distribution; x = alpha x0 + sigma eps still holds.

    Args:
        path: that the latents are on.
        prediction: of b latents.
        r: their times.
        push: [b, *latent], strength times the gradient of the reward by x0.
    """
    here = [path.at(time) for time in r]
    shift = push * column([covariance(c) for c in here], push)
    # What the data gain the noise loses: alpha (x0' - x0) = -sigma (eps' - eps).
    return Prediction(
        x0=prediction.x0 + shift, eps=prediction.eps - shift * column([c.ratio for c in here], push)
    )


def covariance(c: Coefficients) -> float:
    """Variance of each coordinate of x0 given x, for data of unit variance: 1 at the noise, 0 at the data."""
    return c.sigma**2 / (c.alpha**2 + c.sigma**2)


@contextmanager
def differentiable(x0: Tensor) -> Generator[Tensor]:
    """A copy of x0 that gradients flow back to, within a search, which runs in inference mode."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield x0.clone().requires_grad_()
