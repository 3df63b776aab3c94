"""One step from r to r' < r, as weights of (x, x0, eps, z): x' = a x + b x0 + c eps + d z.

Writing every kernel as four float64 numbers keeps the arithmetic out of the model's dtype, makes a batch
whose rows are at different times one fused expression, and lets a test compare kernels without a model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sampling.diffusions import DIFFUSIONS
from sampling.prediction import Prediction, column
from sampling.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Weights:
    """x' = x * latent + x0 * data + eps * noise + z * fresh, all float64."""

    x: float
    x0: float
    eps: float
    z: float


def ode(sampler: Sampler, r: float, r_next: float) -> Weights:
    """Euler on the probability-flow ODE: x' = x - u (r - r'), u = alpha' x0 + sigma' eps."""
    c = sampler.path.at(r)
    h = r - r_next
    return Weights(x=1.0, x0=-h * c.d_alpha, eps=-h * c.d_sigma, z=0.0)


def euler_maruyama(sampler: Sampler, r: float, r_next: float) -> Weights:
    """Euler-Maruyama on the reverse SDE (the paper's): x' = x - (u - g^2 s / 2)(r - r') + g sqrt(r - r') z.

    The score is s = -eps / sigma, so the correction joins the weight of eps.
    """
    c = sampler.path.at(r)
    h = r - r_next
    g = sampler.diffusion_scale * DIFFUSIONS[sampler.diffusion](sampler.path, r, r_next)
    return Weights(x=1.0, x0=-h * c.d_alpha, eps=-h * (c.d_sigma + g * g / (2 * c.sigma)), z=g * math.sqrt(h))


def ddim(sampler: Sampler, r: float, r_next: float) -> Weights:
    """DDIM (arXiv 2010.02502): x' = alpha' x0 + sqrt(sigma'^2 - n^2) eps + n z.

    n = eta sigma' sqrt(1 - (ratio / ratio')^2) with ratio = alpha / sigma: at eta 1 the variance of the exact
    posterior of x' given x and x0, on any path. Coefficients of the marginal are kept, so large steps are
    safe.
    """
    here, there = sampler.path.at(r), sampler.path.at(r_next)
    n = sampler.eta * there.sigma * math.sqrt(1 - (here.ratio / there.ratio) ** 2)
    return Weights(x=0.0, x0=there.alpha, eps=math.sqrt(there.sigma**2 - n * n), z=n)


_KERNELS: dict[str, Callable[[Sampler, float, float], Weights]] = {
    "ode": ode,
    "euler_maruyama": euler_maruyama,
    "ddim": ddim,
}


def weights(sampler: Sampler, r: float, r_next: float) -> Weights:
    """The weights of the sampler's kernel for 0 <= r' < r <= 1; ValueError otherwise."""
    if not 0 <= r_next < r <= 1:
        raise ValueError(f"a step goes down within [0, 1], and this one goes from {r} to {r_next}")
    return _KERNELS[sampler.kernel](sampler, r, r_next)


def is_stochastic(sampler: Sampler, r: float, r_next: float) -> bool:
    """Whether a step uses fresh noise; where not, the noise need not be drawn."""
    return weights(sampler, r, r_next).z > 0


def step(
    sampler: Sampler,
    x: Tensor,
    prediction: Prediction,
    r: Sequence[float],
    r_next: Sequence[float],
    z: Tensor | None,
) -> Tensor:
    """Move each row of x from its r to its r'.

    Args:
        sampler: names the kernel, its path and its noise.
        x: [b, *latent].
        prediction: of x, [b, *latent].
        r: b times in (0, 1].
        r_next: b times, each in [0, r).
        z: [b, *latent] standard normal; None where no row's step is stochastic.
    """
    rows = [weights(sampler, *times) for times in zip(r, r_next, strict=True)]
    moved = prediction.x0 * column([w.x0 for w in rows], x)
    moved += prediction.eps * column([w.eps for w in rows], x)
    if any(w.x for w in rows):
        moved += x * column([w.x for w in rows], x)
    if z is not None:
        moved += z * column([w.z for w in rows], x)
    elif any(w.z for w in rows):
        raise ValueError(f"a {sampler.kernel} step needs noise")
    return moved
