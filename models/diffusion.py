"""Models that predict along a diffusion, as velocities of the straight path that the search asks for.

A diffusion's latents alpha x0 + sigma eps and the straight path's (1 - t) x0 + t eps are the same data and
noise in other proportions. Where sigma / alpha = t / (1 - t) they are multiples of each other: the model is
asked there, and what it predicts is put as data and noise, which are those of every path (docs/maths.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""The network's output for latents [b, ...] of the diffusion at steps [b]."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Diffusion:
    """A discrete variance-preserving diffusion, read between its steps too.

    Attributes:
        log_ratios: log(sigma / alpha) at each of its steps, ascending, [steps], float64.
        prediction: what the network predicts along it; one of `PREDICTIONS`.
    """

    log_ratios: Tensor
    prediction: str

    @classmethod
    def of(cls, scheduler: Any) -> Self:  # noqa: ANN401 -- any of diffusers' schedulers of such a diffusion
        """The diffusion of a scheduler; one that ends in noise alone ends where Euler's does."""
        signal = scheduler.alphas_cumprod.double().clamp(min=2.0**-24)
        return cls(((1 - signal) / signal).log() / 2, scheduler.config.prediction_type)

    def velocity(self, predict: Predict, x: Tensor, t: Tensor) -> Tensor:
        """Velocity of the straight path; beyond the first step and the last the model is asked at these.

        Args:
            predict: the network.
            x: latents [b, ...] of the straight path, float32.
            t: times [b] in [0, 1], on the device of x.

        Returns:
            [b, ...], float32.
        """
        rows = (-1, *[1] * (x.dim() - 1))
        log_ratio = (t.double() / (1 - t.double())).log().clamp(self.log_ratios[0], self.log_ratios[-1])
        alpha = (1 / (1 + (2 * log_ratio).exp()).sqrt()).float().view(rows)
        sigma = (1 - alpha**2).sqrt()
        t = t.float().view(rows)
        scaled = x / ((1 - t) ** 2 + t**2).sqrt()
        output = predict(scaled, self.steps(log_ratio))
        x0, eps = self.parts(output, scaled, alpha, sigma)
        # The same where the ratio is met; outside, each keeps what is certain there and divides by no zero.
        return torch.where(t < 0.5, (eps - x) / (1 - t), (x - x0) / t)

    def steps(self, log_ratio: Tensor) -> Tensor:
        """The steps, fractions included, at which the diffusion has these ratios, [b], float32."""
        ratios = self.log_ratios.to(log_ratio.device)
        right = torch.searchsorted(ratios, log_ratio).clamp(1, len(ratios) - 1)
        below, above = ratios[right - 1], ratios[right]
        return (right - 1 + (log_ratio - below) / (above - below)).float()

    def parts(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Data and noise that the network predicts, of latents x = alpha x0 + sigma eps."""
        if self.prediction == "epsilon":
            return (x - sigma * output) / alpha, output
        if self.prediction == "v_prediction":
            return alpha * x - sigma * output, sigma * x + alpha * output
        return output, (x - alpha * output) / sigma
