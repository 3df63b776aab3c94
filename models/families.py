"""Which of diffusers' modular pipelines are driven, and why the others are not.

A family stands in `SUPPORTED` once tests/models/test_families.py holds it to its own pipeline; the table of
docs/models.md is printed from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DENOISERS = frozenset({"transformer", "unet"})
"""What pipelines call the network that a search asks; each has one."""
UNNAMED = ""
"""The workflow of a family whose blocks have one way to go, without a name."""


@dataclass(frozen=True)
class Workflows:
    """What diffusers calls a family's ways to a picture; None: it has no such way.

    Attributes:
        text: from a prompt alone.
        image: from a prompt and an image that it is about.
    """

    text: str | None = "text2image"
    image: str | None = None


TEXT = Workflows()
BOTH = Workflows(image="image_conditioned")

SUPPORTED: Mapping[str, Workflows] = MappingProxyType(
    {
        "FluxModularPipeline": TEXT,
        "FluxKontextModularPipeline": BOTH,
        "Flux2ModularPipeline": BOTH,
        "Flux2KleinModularPipeline": BOTH,
        "Flux2KleinBaseModularPipeline": BOTH,
        "StableDiffusionXLModularPipeline": TEXT,
        "StableDiffusion3ModularPipeline": TEXT,
        "QwenImageModularPipeline": TEXT,
        "QwenImageEditModularPipeline": Workflows(text=None, image="image_conditioned"),
        "QwenImageEditPlusModularPipeline": Workflows(text=None, image=UNNAMED),
        "ZImageModularPipeline": TEXT,
        "Krea2ModularPipeline": TEXT,
        "Krea2TurboModularPipeline": TEXT,
        "ErnieImageModularPipeline": TEXT,
    }
)

VIDEOS = "it draws videos"
COSMOS_3 = "it draws videos, and its loop does not end in one scheduler's step"
QWEN_2 = "it draws with an alpha channel, and its processor needs torchvision"

UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "AnimaModularPipeline": "its transformer needs torchvision",
        "Ideogram4ModularPipeline": "its guidance follows the number of the step",
        "Flux3ModularPipeline": "a second language model rewrites its prompts by chance",
        "Flux3DistilledModularPipeline": "it predicts the jump to a later time, not a velocity",
        "QwenImage21ModularPipeline": QWEN_2,
        "QwenImage21TurboModularPipeline": QWEN_2,
        "QwenImageLayeredModularPipeline": "it takes a picture apart into layers",
        "Cosmos3OmniModularPipeline": COSMOS_3,
        "Cosmos3DistilledModularPipeline": COSMOS_3,
        "EchoModularPipeline": VIDEOS,
        "HeliosModularPipeline": VIDEOS,
        "HeliosPyramidModularPipeline": VIDEOS,
        "HeliosPyramidDistilledModularPipeline": VIDEOS,
        "HunyuanVideo15ModularPipeline": VIDEOS,
        "LTXModularPipeline": VIDEOS,
        "LTX2ModularPipeline": VIDEOS,
        "LTX25ModularPipeline": VIDEOS,
        "MiniMaxH3ModularPipeline": VIDEOS,
        "MiniMaxMusic3ModularPipeline": "it makes music",
        "WanModularPipeline": VIDEOS,
        "Wan22ModularPipeline": VIDEOS,
        "WanImage2VideoModularPipeline": VIDEOS,
        "Wan22Image2VideoModularPipeline": VIDEOS,
        "Wan22VaceModularPipeline": VIDEOS,
        "WanAnimate2ModularPipeline": VIDEOS,
        "WanAnimate2DistilledModularPipeline": VIDEOS,
    }
)
"""All other modular pipelines of the pinned diffusers."""

UNMAPPED: Mapping[str, str] = MappingProxyType({"ErnieImagePipeline": "ErnieImageModularPipeline"})
"""Modular classes that diffusers does not find by itself from the class in a repository's index."""


def reason_against(pipeline: str) -> str | None:
    """Why a modular pipeline of this class is not driven; None: it is."""
    if pipeline in SUPPORTED:
        return None
    return UNSUPPORTED.get(
        pipeline, "no test holds it to its own pipeline; docs/models.md lists the families"
    )
