"""How latents move: path, kernel, grid and noise, by name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from sampling.diffusions import DIFFUSIONS
from sampling.errors import UnknownNameError
from sampling.grids import GRIDS
from sampling.interpolants import INTERPOLANTS, Interpolant

KERNELS = ("ode", "euler_maruyama", "ddim")

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Sampler:
    """The settings of one step and of the grid it walks.

    Args:
        interpolant: "linear" or "vp".
        kernel: "ode", "euler_maruyama" (the paper's) or "ddim".
        steps: steps from t = 1 to t = 0, at least 1.
        grid: "quadratic" (the paper's) or "linear".
        diffusion: g of euler_maruyama: square, linear, constant, sigma, sin or flow_grpo.
        diffusion_scale: what g is multiplied by; 3 with "square" is the paper's.
        eta: noise of ddim in [0, 1]; 0 is deterministic, 1 the ancestral sampler.
        reward_guidance: strength 1 / beta of sampling.guidance, finite and at least 0; 0 is none.

    Raises:
        UnknownNameError: for a name not in the tables.
        ValueError: for a number out of range.
    """

    interpolant: str = "vp"
    kernel: str = "euler_maruyama"
    steps: int = 10
    grid: str = "quadratic"
    diffusion: str = "square"
    diffusion_scale: float = 3.0
    eta: float = 1.0
    reward_guidance: float = 0.0

    def __post_init__(self) -> None:
        look_up("interpolant", self.interpolant, INTERPOLANTS)
        look_up("kernel", self.kernel, dict.fromkeys(KERNELS))
        look_up("grid", self.grid, GRIDS)
        look_up("diffusion", self.diffusion, DIFFUSIONS)
        if self.steps < 1:
            raise ValueError(f"steps is at least 1, and was {self.steps}")
        for name in ("diffusion_scale", "reward_guidance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is finite and not negative, and was {value}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta lies in [0, 1], and was {self.eta}")

    @property
    def path(self) -> Interpolant:
        """The interpolant itself."""
        return INTERPOLANTS[self.interpolant]

    @property
    def times(self) -> tuple[float, ...]:
        """The steps + 1 times of the grid, from 1 to 0; level l is at times[l]."""
        return GRIDS[self.grid](self.steps)


def look_up(kind: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """The entry of a closed table, or an UnknownNameError with the nearest known name."""
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return table[name]
