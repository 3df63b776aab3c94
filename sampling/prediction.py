"""What the model says about a latent: (x0, eps), which holds on every path at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.interpolants import LINEAR, Interpolant

# (x [b, *latent], t [b] in [0, 1], same dtype as x) -> v [b, *latent] on the linear path, dx/dt = eps - x0.
# The model may compute in its own dtype; what it returns is brought back to x's.
Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The model's estimate of the data and of the noise in a latent.

    Args:
        x0: [*latent] or [b, *latent], the expected data.
        eps: same shape, the expected noise; x = alpha x0 + sigma eps exactly up to rounding.
    """

    x0: Tensor
    eps: Tensor


def stack(predictions: Sequence[Prediction]) -> Prediction:
    """One prediction with a batch axis from rows without."""
    return Prediction(
        x0=torch.stack([row.x0 for row in predictions]), eps=torch.stack([row.eps for row in predictions])
    )


def unstack(prediction: Prediction) -> list[Prediction]:
    """The rows of a batched prediction, as views."""
    pairs = zip(prediction.x0.unbind(), prediction.eps.unbind(), strict=True)
    return [Prediction(x0=x0, eps=eps) for x0, eps in pairs]


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One coefficient a row, computed in float64, as a tensor [b, 1, ...] that multiplies ``like``."""
    flat = torch.tensor(values, dtype=torch.float64).to(device=like.device, dtype=like.dtype)
    return flat.view(-1, *[1] * (like.ndim - 1))


def predict(velocity: Velocity, interpolant: Interpolant, x: Tensor, r: Sequence[float]) -> Prediction:
    """Ask a linear-path model about latents of another path (the conversion of section 4.2, as x0 and eps).

    The linear path has the same alpha / sigma at time t as ``interpolant`` at r, so x scaled by
    sigma_linear(t) / sigma(r) is a latent of the linear path at t, with the same x0 and the same eps.

    Args:
        velocity: the model.
        interpolant: the path that the latents are on.
        x: [b, *latent], float32 or float64.
        r: b times in (0, 1]; rows may be at different times.
    """
    here = [interpolant.at(time) for time in r]
    t = [LINEAR.time_at_ratio(c.ratio) for c in here]
    scale = [LINEAR.at(time).sigma / c.sigma for time, c in zip(t, here, strict=True)]
    t_column = column(t, x)
    x_linear = x * column(scale, x)
    v = velocity(x_linear, t_column.view(-1)).to(x.dtype)
    x0 = x_linear - t_column * v
    # eps = x_linear + (1 - t) v = x0 + v
    return Prediction(x0=x0, eps=x0 + v)
