"""Sampler settings and search strategies: their parameters and the least NFE each one needs.

The arithmetic repeats that of `sampling`, which this package may not import; a test holds the two equal.
"""

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Interpolant = Literal["linear", "vp"]
Kernel = Literal["ode", "euler_maruyama", "ddim"]
Grid = Literal["quadratic", "linear"]
Diffusion = Literal["square", "linear", "constant", "sigma", "sin", "flow_grpo"]

Steps = Annotated[int, Field(ge=1, le=200)]
Eta = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0.0, le=1e4, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of everything a client posts: unknown fields refused, no silent conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SamplerRequest(Strict):
    """Sampler settings as posted; null means the default (`steps`: the model's)."""

    interpolant: Interpolant = "vp"
    kernel: Kernel = "euler_maruyama"
    steps: Steps | None = None
    grid: Grid = "quadratic"
    diffusion: Diffusion = Field(default="square", description="noise of kernel euler_maruyama")
    diffusion_scale: Scale | None = Field(
        default=None, description="what it is multiplied by: default 3.0; 0.7 for flow_grpo"
    )
    eta: Eta = Field(default=1.0, description="noise of kernel ddim: 0 none, 1 the ancestral sampler's")
    reward_guidance: Strength = Field(
        default=0.0,
        description="strength, 1 / beta, by which the reward's gradient is added to the score; 0: not at all",
    )


class Sampler(Strict):
    """Sampler settings with every default filled in."""

    interpolant: Interpolant
    kernel: Kernel
    steps: Steps
    grid: Grid
    diffusion: Diffusion
    diffusion_scale: Scale
    eta: Eta
    reward_guidance: Strength = 0.0
    """Jobs submitted before it was there have none."""


OWN_WAY: Mapping[str, str] = MappingProxyType({"interpolant": "linear", "kernel": "ode", "grid": "linear"})
"""The sampler of the model's own pipeline: its ODE, at its times."""


class StrategyParams(Strict):
    """Base of the members of the union."""

    own_way: ClassVar[bool] = False
    """Whether the search, made of whole runs, goes the model's own way where the request names no other."""

    def parameters(self, sampler: Sampler) -> dict[str, object]:
        """Those of the strategy in `sampling`: these, and the way, which is its own where runs are whole."""
        way = {name: getattr(sampler, name) for name in OWN_WAY} if self.own_way else {}
        return self.model_dump(exclude={"strategy"}) | way

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE that one more scored candidate takes at most: what a further image needs."""
        del sampler
        return 1


class BaseParams(StrategyParams):
    """One run of the model: no search."""

    own_way: ClassVar[bool] = True

    strategy: Literal["base"] = "base"

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return sampler.steps


class BestOfNParams(StrategyParams):
    """As many runs as the budget pays for, the best by the reward kept."""

    own_way: ClassVar[bool] = True

    strategy: Literal["best_of_n"] = "best_of_n"
    steps: Steps | None = Field(default=None, description="steps of each run; default the sampler's")

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return self.steps or sampler.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return self.candidate_nfe(sampler)


DEFAULT_FINISH_STEPS = 4
AUTHORS: Mapping[str, int] = MappingProxyType({"chains": 2, "initial_noises": 25})
"""Settings of rbf in arXiv 2503.19385."""
SMALL: Mapping[str, int] = MappingProxyType({"chains": 1, "initial_noises": 12})
SMALL_BUDGET = 150
"""NFE below which `SMALL` are better, measured in docs/search.md."""
WIDE: Mapping[str, int | str] = MappingProxyType(
    {"chains": 2, "initial_noises": 50, "start": "top", "width": 8, "accept": "best"}
)
LARGE_BUDGET = 500
"""NFE from which `WIDE` are better, measured there too (decision 0135)."""


def rbf_defaults(nfe: int, named: Collection[str] = ()) -> Mapping[str, int | str]:
    """What mode `rollover` has for a budget, beside the parameters that are named.

    `WIDE` go together, and were measured at the first level: who names one of them has none of the others.
    """
    if nfe >= LARGE_BUDGET and not {*WIDE, "first_level"}.intersection(named):
        return WIDE
    return SMALL if nfe < SMALL_BUDGET else AUTHORS


class RbfParams(StrategyParams):
    """Rollover Budget Forcing (arXiv 2503.19385).

    Mode `rollover` spends the budget exactly, finishes at t = 0 and returns the best of the run; `upstream`
    does as the authors' program: one draw at a time, a pool of noises for each chain, no finish, one image.
    """

    strategy: Literal["rbf"] = "rbf"
    mode: Literal["upstream", "rollover"] = "rollover"
    chains: int = Field(
        default=AUTHORS["chains"], ge=1, le=64, description="default in mode `rollover` below 150 NFE: 1"
    )
    initial_noises: int = Field(
        default=AUTHORS["initial_noises"],
        ge=1,
        le=5000,
        description="scored before the first level: in all, or upstream for each chain; default in mode "
        "`rollover` below 150 NFE: 12, from 500 on: 50, with `start` top, `width` 8 and `accept` best",
    )
    width: int = Field(default=1, ge=1, le=64, description="children drawn at once by each chain; upstream 1")
    accept: Literal["first", "best"] = "first"
    finish_steps: int | None = Field(
        default=None, ge=0, le=50, description="evaluations of the finish; default 4; upstream has none"
    )
    start: Literal["best", "top"] = Field(
        default="best", description="all chains from the best noise, or chain i from the i-th best"
    )
    plan_nfe: int | None = Field(
        default=None,
        ge=1,
        description="NFE that quotas are laid out for; the budget's rest is drawn at the last level. "
        "Default: the budget",
    )
    first_level: int = Field(
        default=0,
        ge=0,
        le=198,
        description="level of the grid where initial noises are scored and chains begin; upstream 0",
    )
    approach_steps: int = Field(
        default=2,
        ge=1,
        le=50,
        description="evaluations of each initial noise on its way to `first_level`; none at level 0",
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
        return self.pool_nfe + self.finish + self.chains * self.levels(sampler)

    @property
    def pool(self) -> int:
        """Initial noises over all chains."""
        return self.initial_noises * (self.chains if self.upstream else 1)

    @property
    def pool_nfe(self) -> int:
        """NFE of the initial noises, with their way to the first level."""
        return self.pool * (1 + self.approach_steps if self.first_level else 1)

    def levels(self, sampler: Sampler) -> int:
        """Levels that quotas are laid out over; upstream one more than are drawn at."""
        return sampler.steps - self.first_level - (0 if self.upstream else 1)


ROUNDING = 1e-9
FinishSteps = Annotated[int, Field(ge=0, le=50, description="evaluations of the finish, reserved for it")]
Count = Annotated[int, Field(ge=1, le=5000)]
Correlation = Annotated[float, Field(ge=0.0, lt=1.0)]


class ZeroOrderParams(StrategyParams):
    """Local search over initial noises (arXiv 2501.09732): neighbours of the best noise so far."""

    own_way: ClassVar[bool] = True

    strategy: Literal["zero_order"] = "zero_order"
    steps: Steps | None = Field(
        default=None,
        description="of each run; 1: the one-step prediction judges; default the sampler's",
    )
    neighbours: Count = Field(default=4, description="runs in a generation")
    correlation: Correlation = Field(default=0.95, description="of a neighbour's noise with the best one's")
    patience: Count | None = Field(
        default=None, description="generations without gain before fresh noises; null: never"
    )
    finish_steps: FinishSteps = 0

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return self.steps or sampler.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one run and the finish."""
        return self.candidate_nfe(sampler) + self.finish_steps


class SopParams(StrategyParams):
    """Search over paths (arXiv 2501.09732): down by `back`, up by `forward`, branch there, keep the best."""

    own_way: ClassVar[bool] = True

    strategy: Literal["sop"] = "sop"
    paths: int = Field(default=2, ge=1, le=64, description="survivors of a round")
    forward: float = Field(
        default=0.78, gt=0.0, lt=1.0, description="noise added, in time from 0 (data) to 1 (noise)"
    )
    back: float = Field(
        default=0.81, gt=0.0, lt=1.0, description="time solved down; at least 0.01 more than `forward`"
    )
    steps: Steps = Field(default=4, description="evaluations of each way down")

    @property
    def apart(self) -> bool:
        """Whether rounds come to an end: `back` exceeds `forward` by .01 or more."""
        return self.back - self.forward >= 0.01 - ROUNDING

    @property
    def rounds(self) -> int:
        """Rounds until t = 0, that of the initial noises included."""
        return 1 + math.ceil((1 - self.back) / (self.back - self.forward) - ROUNDING)

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE of one way down."""
        del sampler
        return self.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one way down for each path in each round."""
        del sampler
        if not self.apart:
            return 1  # refused on its own account
        return self.rounds * self.paths * self.steps


class SmcParams(StrategyParams):
    """Feynman-Kac steering (arXiv 2501.06848): particles weighed and resampled at each level."""

    strategy: Literal["smc"] = "smc"
    potential: Literal["difference", "max", "sum", "reward"] = Field(
        default="max", description="of the rewards on a particle's path, or this level's reward alone"
    )
    inverse_temperature: float = Field(
        default=10.0, ge=0.0, le=1e6, description="lambda, what rewards are multiplied by; 0: plain sampling"
    )
    ess_threshold: float = Field(
        default=0.5, ge=0.0, le=1.0, description="resample below this share of effective particles"
    )
    finish_steps: FinishSteps = DEFAULT_FINISH_STEPS

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one particle and the finish."""
        return sampler.steps + self.finish_steps


class SvddParams(StrategyParams):
    """SVDD (arXiv 2408.08252): children of each chain at each level, of which it goes on from one."""

    strategy: Literal["svdd"] = "svdd"
    chains: int = Field(default=2, ge=1, le=64)
    finish_steps: FinishSteps = DEFAULT_FINISH_STEPS
    temperature: float = Field(
        default=0.0, ge=0.0, le=1e6, description="0: the best child; else drawn with weight exp(reward / it)"
    )

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one child of each chain at each level, and the finish."""
        return self.chains * sampler.steps + self.finish_steps


class CodeParams(StrategyParams):
    """CoDe (arXiv 2502.00968): blockwise best-of-n, choosing among continuations after some levels."""

    strategy: Literal["code"] = "code"
    chains: int = Field(default=2, ge=1, le=64)
    finish_steps: FinishSteps = DEFAULT_FINISH_STEPS
    block: Steps = Field(default=2, description="levels of a block; only its last is scored")

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE of one continuation."""
        return min(self.block, sampler.steps)

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one continuation of each chain in each block, and the finish."""
        return self.chains * sampler.steps + self.finish_steps


class EvolutionParams(StrategyParams):
    """Selection and mutation of latents at falling noise levels, after EvoSearch (arXiv 2505.17618)."""

    own_way: ClassVar[bool] = True

    strategy: Literal["evolution"] = "evolution"
    generations: Annotated[int, Field(ge=1, le=200)] = 5
    elites: Count = Field(default=4, description="parents of the next generation, the best so far")
    correlation: Correlation = Field(default=0.9, description="of a mutant's noise with its parent's")
    steps: Steps = Field(default=1, description="evaluations that judge a latent; 1: one-step prediction")
    finish_steps: FinishSteps = DEFAULT_FINISH_STEPS

    def candidate_nfe(self, sampler: Sampler) -> int:
        """NFE of one solve."""
        del sampler
        return self.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """NFE of one solve in each generation, and the finish."""
        del sampler
        return self.generations * self.steps + self.finish_steps


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
    | Annotated[RbfParams, Tag("rbf")]
    | Annotated[ZeroOrderParams, Tag("zero_order")]
    | Annotated[SopParams, Tag("sop")]
    | Annotated[SmcParams, Tag("smc")]
    | Annotated[CodeParams, Tag("code")]
    | Annotated[SvddParams, Tag("svdd")]
    | Annotated[EvolutionParams, Tag("evolution")],
    Discriminator(strategy_of),
]
"""The closed union of strategies, told apart by `strategy`."""


STRATEGY_PARAMS: Mapping[str, type[SearchParams]] = MappingProxyType(
    {
        "base": BaseParams,
        "best_of_n": BestOfNParams,
        "rbf": RbfParams,
        "zero_order": ZeroOrderParams,
        "sop": SopParams,
        "smc": SmcParams,
        "code": CodeParams,
        "svdd": SvddParams,
        "evolution": EvolutionParams,
    }
)
"""The members of the union by name."""


def default_scale(diffusion: Diffusion) -> float:
    """The diffusion scale used where a request names none."""
    return 0.7 if diffusion == "flow_grpo" else 3.0
