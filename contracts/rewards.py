"""The rewards that a server can run, as facts: ours, and those that installed packages add.

Facts only: the code behind a name is found by `models/registry.py` on the worker's side, or, of a package's
reward, by its own `factory`.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, JsonValue

from contracts.catalogue import NoParams, RewardFacts
from contracts.plugins import discovered
from contracts.search import Strict

ThingName = Annotated[str, Field(max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9 '-]*$")]
ThingCount = Annotated[int, Field(ge=0, le=99)]
Things = Annotated[
    dict[ThingName, ThingCount],
    Field(min_length=1, max_length=16, json_schema_extra={"additionalProperties": False}),
]
log = logging.getLogger(__name__)


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


BUNDLED: Mapping[str, RewardFacts] = MappingProxyType(
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
            weighty(
                "instructblip",
                "VQAScore of InstructBLIP: how likely it answers yes when asked whether it shows the prompt",
                bounds=(0.0, 1.0),
                weights="Salesforce/instructblip-flan-t5-xl",
                weights_licence="MIT",
            ),
            weighty(
                "image_reward",
                "ImageReward: what people rank higher for the prompt, learned from ImageRewardDB",
                bounds=(None, None),
                weights="THUDM/ImageReward",
                weights_licence="Apache-2.0",
            ),
            weighty(
                "grounded_count",
                "Minus the squared errors of the counts asked for, by Grounding DINO and SAM",
                bounds=(None, 0.0),
                weights="IDEA-Research/grounding-dino-base and facebook/sam-vit-base",
                weights_licence="Apache-2.0",
                differentiable=False,
            ),
        )
    }
)


class GroundedCountParams(Strict):
    """What `grounded_count` counts."""

    counts: Things | None = Field(
        default=None, description="things, in the singular, and how many of each; null: read from the prompt"
    )


PARAMS: Mapping[str, type[Strict]] = MappingProxyType({"grounded_count": GroundedCountParams})
"""The models of parameters of those of our rewards that have any."""

PLUGINS, BROKEN = discovered(BUNDLED)
"""The rewards of installed packages, and for each that cannot be used, why; by name.

A broken one may have the name of one of ours, which is there nevertheless: look in `REWARDS` first.
"""

REWARDS: Mapping[str, RewardFacts] = MappingProxyType(
    {**BUNDLED, **{name: plugin.facts(name) for name, plugin in PLUGINS.items()}}
)

REWARD_PARAMS: Mapping[str, type[Strict]] = MappingProxyType(
    {
        **dict.fromkeys(BUNDLED, NoParams),
        **PARAMS,
        **{name: plugin.params for name, plugin in PLUGINS.items()},
    }
)
"""The model of each reward's `params`."""


def default_params(name: str) -> dict[str, JsonValue]:
    """The parameters of a reward that is named without any."""
    return REWARD_PARAMS[name]().model_dump(mode="json")


def tell_of_broken() -> None:
    """Log each reward of an installed package that cannot be used. Without it the server runs as ever."""
    for reason in BROKEN.values():
        log.warning("%s", reason)
