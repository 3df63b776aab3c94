"""What is told of what a server can run: models, rewards and strategies, and the table of strategies.

The tables of the others are `contracts.models` and `contracts.rewards`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from contracts.search import Strict


class Facts(BaseModel):
    """Base of the catalogue's records."""

    model_config = ConfigDict(frozen=True)


class SizeFacts(Facts):
    """Allowed width and height in pixels: `minimum` to `maximum`, a multiple of `multiple`."""

    minimum: int
    maximum: int
    multiple: int
    default: int


TakesImage = Literal["none", "optional", "required"]
"""Whether a prompt comes with an image that it is about."""


class GuidanceFacts(Facts):
    """Allowed guidance scale, for models that take one."""

    minimum: float
    maximum: float
    default: float


class Defaults(Facts):
    """Search settings of a model that a submission takes where it leaves them open.

    They follow from what `rollover calibrate` measured. Those of `rbf` hold for mode `rollover`, on the
    model's own grid: a submission that names another grid or interpolant gets none of them; for other steps
    `first_level` is scaled.
    """

    sampler: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    rbf: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class ModelFacts(Facts):
    """What a client needs to know of a model before it submits."""

    id: str
    title: str
    few_step: bool = Field(description="distilled: one-step predictions are informative from t = 1 down")
    width: SizeFacts
    height: SizeFacts
    steps: int = Field(description="default number of sampler steps")
    guidance: GuidanceFacts | None = Field(description="null: the model takes no guidance scale")
    image: TakesImage = Field(default="none", description="whether requests have an `image` to go by")
    reward: str = Field(description="reward used where a request names none")
    held_out: tuple[str, ...] = Field(description="held-out rewards used where a request names none")
    defaults: Defaults = Field(default=Defaults(), description="settings used where a request names none")
    licence: str


class NoParams(Strict):
    """Parameters of a reward that has none."""


class RewardFacts(Facts):
    """What a client needs to know of a reward.

    What a search maximises is the sum of weight x (score - mean) / scale over its rewards, one or several,
    with these constants and no batch statistics.
    """

    name: str
    title: str
    minimum: float | None
    maximum: float | None
    higher_is_better: bool = True
    differentiable: bool
    weights: str | None = Field(description="the weights it loads; null: none")
    licence: str = Field(description="of its code")
    weights_licence: str | None = Field(default=None, description="of its weights; null: as of its code")
    setting: str | None = Field(
        default=None, description="the server's setting that it needs; null: every server can run it"
    )
    models: tuple[str, ...] | None = Field(description="models it makes sense for; null: every one")
    mean: float
    scale: float


class StrategyFacts(Facts):
    """A search strategy."""

    name: str
    title: str


STRATEGIES: Mapping[str, StrategyFacts] = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            StrategyFacts(name="base", title="One run: no search"),
            StrategyFacts(name="best_of_n", title="The best of as many runs as the budget buys"),
            StrategyFacts(name="rbf", title="Rollover Budget Forcing (arXiv 2503.19385)"),
            StrategyFacts(
                name="zero_order", title="Local search over initial noises (Ma et al., arXiv 2501.09732)"
            ),
            StrategyFacts(name="sop", title="Search over paths (Ma et al., arXiv 2501.09732)"),
            StrategyFacts(
                name="smc", title="Sequential Monte Carlo: Feynman-Kac steering (arXiv 2501.06848)"
            ),
            StrategyFacts(name="code", title="Blockwise best-of-n: CoDe (arXiv 2502.00968)"),
            StrategyFacts(name="svdd", title="Soft value-based decoding: SVDD (arXiv 2408.08252)"),
            StrategyFacts(
                name="evolution", title="Selection and mutation, after EvoSearch (arXiv 2505.17618)"
            ),
        )
    }
)
