"""A flow whose truth is known: data from a Gaussian mixture, the velocity in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.guidance import differentiable
from sampling.prediction import Prediction, Velocity
from sampling.problem import Scores


@dataclass(frozen=True)
class Mixture:
    """Isotropic components over latents of shape [d], d of any size."""

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    deviations: tuple[float, ...]

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        """E[x0 | x] and E[eps | x] for x [b, d] = alpha x0 + sigma eps; alpha, sigma [b, 1]."""
        means = torch.tensor(self.means, dtype=x.dtype)
        deviations = torch.tensor(self.deviations, dtype=x.dtype)[:, None]
        a, s = alpha[:, None], sigma[:, None]
        variance = a**2 * deviations**2 + s**2
        away = x[:, None] - a * means
        log_density = -0.5 * ((away**2).sum(-1, keepdim=True) / variance + x.shape[1] * variance.log())
        prior = torch.tensor(self.weights, dtype=x.dtype).log()[:, None]
        belief = torch.softmax(log_density + prior, dim=1)
        x0 = (belief * (means + a * deviations**2 / variance * away)).sum(1)
        eps = (belief * (s / variance * away)).sum(1)
        return Prediction(x0=x0, eps=eps)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Linear-path velocity E[eps - x0 | x] for x [b, d], t [b]."""
        t = t.view(-1, 1)
        prediction = self.posterior(x, 1 - t, t)
        return prediction.eps - prediction.x0

    def draw(self, count: int, seed: int) -> Tensor:
        """Data [count, d], float64."""
        generator = torch.Generator().manual_seed(seed)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        means = torch.tensor(self.means, dtype=torch.float64)[which]
        deviations = torch.tensor(self.deviations, dtype=torch.float64)[which, None]
        return means + deviations * torch.randn(means.shape, generator=generator, dtype=torch.float64)


MIXTURE = Mixture(
    weights=(0.5, 0.3, 0.2), means=((1.5, 0.0), (-1.0, 1.0), (-0.5, -1.5)), deviations=(0.3, 0.4, 0.25)
)


def row_by_row(velocity: Velocity) -> Velocity:
    """The same velocity, one row a call: bits then cannot depend on what else is in the batch."""

    def alone(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([velocity(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])

    return alone


@dataclass(frozen=True)
class Nearness:
    """Minus the squared distance of x0 [b, d] to a target, with a little picture of it."""

    target: tuple[float, ...]

    def __call__(self, x0: Tensor) -> Scores:
        rewards = [-(math.dist(row, self.target) ** 2) for row in x0.tolist()]
        images = x0.new_zeros(len(x0), 3, 2, 2) + x0.mean(1).view(-1, 1, 1, 1)
        return Scores(rewards=rewards, parts=[{"nearness": reward} for reward in rewards], images=images)

    def slope(self, x0: Tensor) -> tuple[Scores, Tensor]:
        """The same with its gradient, by autograd, as models have it."""
        with differentiable(x0) as leaf:
            rewards = -(leaf - torch.tensor(self.target, dtype=leaf.dtype)).square().sum(1)
            [gradient] = torch.autograd.grad(rewards.sum(), leaf)
        return self(x0), gradient
