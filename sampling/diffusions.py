"""How much noise Euler-Maruyama adds: g(r), by name. None of them changes the marginals of the exact SDE."""

import math
from collections.abc import Callable

from sampling.interpolants import Interpolant

# g from the path, the time r in (0, 1] and the time r' in [0, r) that the step goes to.
Diffusion = Callable[[Interpolant, float, float], float]


def square(_path: Interpolant, r: float, _r_next: float) -> float:
    """r^2; at scale 3 the paper's choice."""
    return r * r


def linear(_path: Interpolant, r: float, _r_next: float) -> float:
    """The time itself."""
    return r


def constant(_path: Interpolant, _r: float, _r_next: float) -> float:
    """1."""
    return 1.0


def sigma(path: Interpolant, r: float, _r_next: float) -> float:
    """The path's own noise level at r."""
    return path.at(r).sigma


def sin(_path: Interpolant, r: float, _r_next: float) -> float:
    """The sine of pi r / 2, a quarter of a wave."""
    return math.sin(math.pi * r / 2)


def flow_grpo(path: Interpolant, r: float, r_next: float) -> float:
    """Flow-GRPO's (arXiv 2505.05470, scale .7): sqrt(sigma / alpha), on the linear path sqrt(t / (1 - t)).

    It is infinite where alpha is zero, at t = 1 on the linear path: that step takes it at r' instead.
    """
    at = path.at(r)
    if at.alpha == 0:
        at = path.at(r_next)
    if at.alpha == 0 or at.sigma == 0:
        raise ValueError("flow_grpo has no finite noise for a single step from pure noise to data")
    return math.sqrt(at.sigma / at.alpha)


DIFFUSIONS: dict[str, Diffusion] = {
    "square": square,
    "linear": linear,
    "constant": constant,
    "sigma": sigma,
    "sin": sin,
    "flow_grpo": flow_grpo,
}
