"""What a server can run, as facts: rewards and strategies in closed tables, models by `contracts.models`.

Facts only: the code behind a name is found by `models/registry.py` on the worker's side.
"""

from collections.abc import Mapping
from types import MappingProxyType

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


class GuidanceFacts(Facts):
    """Allowed guidance scale, for models that take one."""

    minimum: float
    maximum: float
    default: float


class Defaults(Facts):
    """Search settings of a model that a submission takes where it leaves them open.

    They are what `rollover calibrate` recommends. Those of `rbf` hold for mode `rollover`, on the model's own
    grid: a submission that names steps, grid or interpolant gets none of them.
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


def undistilled(steps: int) -> Defaults:
    """Settings for a model of many steps, as `rollover calibrate` finds them for `shapes-base`.

    One-step predictions tell nothing at t = 1: levels lie lower, and chains begin at r = .6 of the VP path.
    """
    return Defaults(
        sampler={"grid": "linear", "kernel": "ddim"},
        rbf={"first_level": steps * 2 // 5, "initial_noises": 8},
    )


def weight_free(
    name: str,
    title: str,
    *,
    minimum: float | None = 0.0,
    maximum: float | None = None,
    differentiable: bool = True,
    scale: float = 1.0,
) -> RewardFacts:
    """Facts of a reward that is a formula over pixels: no weights, any model."""
    return RewardFacts(
        name=name,
        title=title,
        minimum=minimum,
        maximum=maximum,
        differentiable=differentiable,
        weights=None,
        licence="Apache-2.0",
        models=None,
        mean=0.0,
        scale=scale,
    )


def scene(name: str, title: str, *, differentiable: bool, weights: str | None) -> RewardFacts:
    """Facts of a reward in [0, 1] that reads the bundled world's captions."""
    return RewardFacts(
        name=name,
        title=title,
        minimum=0.0,
        maximum=1.0,
        differentiable=differentiable,
        weights=weights,
        licence="Apache-2.0",
        models=("shapes", "shapes-base"),
        mean=0.0,
        scale=1.0,
    )


def weighty(
    name: str,
    title: str,
    *,
    bounds: tuple[float | None, float | None],
    weights: str,
    weights_licence: str,
    mean: float = 0.0,
    scale: float = 1.0,
    differentiable: bool = True,
) -> RewardFacts:
    """Facts of a reward whose weights are fetched by hand; `mean` and `scale` are typical, not measured."""
    return RewardFacts(
        name=name,
        title=title,
        minimum=bounds[0],
        maximum=bounds[1],
        differentiable=differentiable,
        weights=weights,
        licence="Apache-2.0",
        weights_licence=weights_licence,
        setting="ROLLOVER_REWARD_PATHS",
        models=None,
        mean=mean,
        scale=scale,
    )


REWARDS: Mapping[str, RewardFacts] = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            scene(
                "scene_match",
                "Learned image-text match, graded: counts, colours, shapes and relations",
                differentiable=True,
                weights="shapes/detector",
            ),
            scene(
                "object_count",
                "Graded agreement of the counts alone",
                differentiable=True,
                weights="shapes/detector",
            ),
            scene(
                "scene_exact",
                "1 where a programmatic judge finds exactly the scene asked for, else 0; meant for held_out",
                differentiable=False,
                weights=None,
            ),
            weight_free(
                "compressibility",
                "Minus the size as JPEG at quality 95, in kilobytes",
                minimum=None,
                maximum=0.0,
                differentiable=False,
            ),
            weight_free(
                "incompressibility", "The size as JPEG at quality 95, in kilobytes", differentiable=False
            ),
            weight_free("brightness", "Mean luma", maximum=1.0),
            weight_free(
                "colorfulness",
                "Hasler and Suesstrunk's M3: 15 slightly, 59 quite, 109 extremely",
                scale=100.0,
            ),
            weight_free("sharpness", "Mean modified Laplacian of the luma"),
            RewardFacts(
                name="http",
                title="What a scoring service of the server's owner answers",
                minimum=None,
                maximum=None,
                differentiable=False,
                weights=None,
                licence="Apache-2.0",
                setting="ROLLOVER_REWARD_URL",
                models=None,
                mean=0.0,
                scale=1.0,
            ),
            weighty(
                "clip_score",
                "CLIPScore: 2.5 times the cosine of picture and prompt in CLIP ViT-B/32",
                bounds=(0.0, 2.5),
                weights="openai/clip-vit-base-patch32",
                weights_licence="MIT",
                mean=0.75,
                scale=0.1,
            ),
            weighty(
                "pickscore",
                "PickScore: what people would pick for the prompt, learned from Pick-a-Pic",
                bounds=(None, None),
                weights="yuvalkirstain/PickScore_v1",
                weights_licence="none stated; the authors' code is MIT",
                mean=21.0,
                scale=1.0,
            ),
            weighty(
                "hps",
                "Human Preference Score v2.1: what people prefer for the prompt",
                bounds=(-1.0, 1.0),
                weights="RE-N-Y/hpsv21",
                weights_licence="Apache-2.0 (the authors' own file)",
                mean=0.28,
                scale=0.03,
            ),
            weighty(
                "aesthetic",
                "LAION's aesthetic predictor v2: a rating from about 1 to 10 of the picture alone",
                bounds=(None, None),
                weights="shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",
                weights_licence="Apache-2.0, on CLIP ViT-L/14 (MIT)",
                mean=5.5,
                scale=0.7,
            ),
            weighty(
                "siglip",
                "SigLIP 2: the probability that the prompt belongs to the picture",
                bounds=(0.0, 1.0),
                weights="google/siglip2-so400m-patch14-384",
                weights_licence="Apache-2.0",
            ),
            weighty(
                "vqa_score",
                "VQAScore: how likely Qwen2.5-VL answers Yes when asked whether it shows the prompt",
                bounds=(0.0, 1.0),
                weights="Qwen/Qwen2.5-VL-7B-Instruct",
                weights_licence="Apache-2.0",
            ),
        )
    }
)

STRATEGIES: Mapping[str, StrategyFacts] = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            StrategyFacts(name="base", title="One deterministic run: no search"),
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

REWARD_PARAMS: Mapping[str, type[Strict]] = MappingProxyType(dict.fromkeys(REWARDS, NoParams))
"""The model of each reward's `params`."""
