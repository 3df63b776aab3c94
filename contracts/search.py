"""Sampler settings and search strategies: their parameters and the least NFE each one needs.

The arithmetic repeats that of `sampling`, which this package may not import; a test holds the two equal.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Interpolant = Literal["linear", "vp"]
Kernel = Literal["ode", "euler_maruyama", "ddim"]
Grid = Literal["quadratic", "linear"]
Diffusion = Literal["square", "linear", "constant", "sigma", "sin", "flow_grpo"]

Steps = Annotated[int, Field(ge=1, le=200)]
Eta = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of everything a client posts: unknown fields refused, no silent conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SamplerRequest(Strict):
    """Sampler settings as posted; null means the default (`steps`: the model's)."""

    interpolant: Interpolant = "vp"
    kernel: Kernel = "euler_maruyama"
    steps: Steps | None = None
    grid: Grid = "quadratic"
    diffusion: Diffusion = "square"
    diffusion_scale: Scale | None = Field(default=None, description="default 3.0; 0.7 for flow_grpo")
    eta: Eta = Field(default=1.0, description="noise of kernel ddim: 0 none, 1 the ancestral sampler's")


class Sampler(Strict):
    """Sampler settings with every default filled in."""

    interpolant: Interpolant
    kernel: Kernel
    steps: Steps
    grid: Grid
    diffusion: Diffusion
    diffusion_scale: Scale
    eta: Eta


class BaseParams(Strict):
    """One deterministic run of the model: no search."""

    strategy: Literal["base"] = "base"

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return sampler.steps


class BestOfNParams(Strict):
    """As many deterministic runs as the budget pays for, the best by the reward kept."""

    strategy: Literal["best_of_n"] = "best_of_n"
    steps: Steps | None = Field(default=None, description="steps of each run; default the sampler's")

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return self.steps or sampler.steps


DEFAULT_FINISH_STEPS = 4


class RbfParams(Strict):
    """Rollover Budget Forcing (arXiv 2503.19385).

    Mode `rollover` spends the budget exactly, finishes at t = 0 and returns the best of the run; `upstream`
    does as the authors' program: one draw at a time, a pool of noises for each chain, no finish, one image.
    """

    strategy: Literal["rbf"] = "rbf"
    mode: Literal["upstream", "rollover"] = "rollover"
    chains: int = Field(default=2, ge=1, le=64)
    initial_noises: int = Field(
        default=25,
        ge=1,
        le=5000,
        description="scored before the first level: in all, or upstream for each chain",
    )
    width: int = Field(default=1, ge=1, le=64, description="children drawn at once by each chain; upstream 1")
    accept: Literal["first", "best"] = "first"
    finish_steps: int | None = Field(
        default=None, ge=0, le=50, description="evaluations of the finish; default 4; upstream has none"
    )
    start: Literal["best", "top"] = Field(
        default="best", description="all chains from the best noise, or chain i from the i-th best"
    )

    @property
    def upstream(self) -> bool:
        """Whether this is the authors' way."""
        return self.mode == "upstream"

    @property
    def finish(self) -> int:
        """Evaluations of the finish."""
        default = 0 if self.upstream else DEFAULT_FINISH_STEPS
        return default if self.finish_steps is None else self.finish_steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of the initial noises, the finish, and one draw for each chain at each level."""
        pool = self.initial_noises * (self.chains if self.upstream else 1)
        levels = sampler.steps if self.upstream else sampler.steps - 1
        return pool + self.finish + self.chains * levels


DEFAULT_STRATEGY = "rbf"


def strategy_of(value: object) -> str | None:
    """Name the member of the union a posted `search` object belongs to; without a name, the default one."""
    if isinstance(value, BaseModel):
        return cast("str", getattr(value, "strategy", None))
    if isinstance(value, dict):
        name = cast("dict[str, object]", value).get("strategy", DEFAULT_STRATEGY)
        return name if isinstance(name, str) else repr(name)
    return None


SearchParams = Annotated[
    Annotated[BaseParams, Tag("base")]
    | Annotated[BestOfNParams, Tag("best_of_n")]
    | Annotated[RbfParams, Tag("rbf")],
    Discriminator(strategy_of),
]
"""The closed union of strategies, told apart by `strategy`."""


STRATEGY_PARAMS: Mapping[str, type[BaseParams] | type[BestOfNParams] | type[RbfParams]] = MappingProxyType(
    {"base": BaseParams, "best_of_n": BestOfNParams, "rbf": RbfParams}
)
"""The members of the union by name."""


def default_scale(diffusion: Diffusion) -> float:
    """The diffusion scale used where a request names none."""
    return 0.7 if diffusion == "flow_grpo" else 3.0
