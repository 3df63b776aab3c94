"""FLUX.1's networks and a CLIP-H, made on a device with random weights, on which speed does not depend."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxModularPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.setup import Task
from models.families import TEXT
from models.modular import ModularBackend, lay_out_for_speed
from models.rewards.composite import Composite, Part
from models.rewards.pixels import Preprocessing
from models.rewards.protocol import Facts

SCHEDULER: Mapping[str, Any] = MappingProxyType(
    {"shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 256, "max_image_seq_len": 4096}
)
EDGE = 224
"""Pixels that a CLIP sees of each side."""


@dataclass(frozen=True)
class Size:
    """Configurations that differ from their classes' defaults, and what is asked of them.

    Attributes:
        pixels: width and height of a picture.
        tokens: of the prompt.
        matmul: edge of the square matrices by which the device's rate is measured.
    """

    transformer: Mapping[str, Any]
    autoencoder: Mapping[str, Any]
    vision: Mapping[str, Any]
    pixels: int
    tokens: int
    matmul: int


AUTOENCODER: Mapping[str, Any] = MappingProxyType(
    {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    }
)
FULL = Size(
    transformer={"guidance_embeds": True},
    autoencoder={**AUTOENCODER, "block_out_channels": [128, 256, 512, 512], "latent_channels": 16},
    vision={
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 1024,
    },
    pixels=1024,
    tokens=512,
    matmul=8192,
)
"""FLUX.1-dev as published, and the image tower of CLIP ViT-H/14."""
SMOKE = Size(
    transformer={
        "guidance_embeds": True,
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    },
    autoencoder={
        **AUTOENCODER,
        "block_out_channels": [8] * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
    },
    vision={
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 14,
        "projection_dim": 16,
    },
    pixels=64,
    tokens=8,
    matmul=128,
)
"""The same classes, so small that a CPU runs them in seconds."""


@dataclass(frozen=True)
class Likeness:
    """The cosine of a picture and one random direction: what a CLIP costs in a search, its text known."""

    network: CLIPVisionModelWithProjection
    direction: Tensor
    preprocessing: Preprocessing
    facts: ClassVar[Facts] = Facts(minimum=-1.0, maximum=1.0, differentiable=True, source="benchmarks")

    @classmethod
    def random(cls, size: Size, device: torch.device) -> Self:
        """Float32, as rewards are loaded."""
        config = CLIPVisionConfig(**size.vision, image_size=EDGE)
        with device:
            network = CLIPVisionModelWithProjection(config)
            direction = normalize(torch.randn(config.projection_dim), dim=0)
        pixels = Preprocessing(EDGE, EDGE, "bicubic", (0.5,) * 3, (0.5,) * 3, "shortest", EDGE)
        return cls(network.eval().requires_grad_(requires_grad=False), direction, pixels)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        del prompt
        found = self.network(pixel_values=self.preprocessing(images)).image_embeds
        return normalize(found, dim=-1) @ self.direction


@dataclass(frozen=True)
class Flux:
    """The networks in bfloat16, and a prompt's embeddings, which are random: no text encoder is made."""

    size: Size
    transformer: FluxTransformer2DModel
    autoencoder: AutoencoderKL
    prompt: Mapping[str, Tensor]
    reward: Likeness

    @classmethod
    def random(cls, size: Size, device: torch.device) -> Self:
        """Made where they run: no copy lies in the memory of the CPU."""
        with device, weights_in(torch.bfloat16):
            transformer = FluxTransformer2DModel(**size.transformer)
            autoencoder = AutoencoderKL(**size.autoencoder)
            prompt = {
                "prompt_embeds": torch.randn(1, size.tokens, transformer.config["joint_attention_dim"]),
                "pooled_prompt_embeds": torch.randn(1, transformer.config["pooled_projection_dim"]),
            }
        for network in (transformer, autoencoder):
            network.eval().requires_grad_(requires_grad=False)
        return cls(size, transformer, autoencoder, prompt, Likeness.random(size, device))

    @property
    def parts(self) -> dict[str, Any]:
        """What a pipeline is made of."""
        scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULER)
        return {"transformer": self.transformer, "vae": self.autoencoder, "scheduler": scheduler}

    def task(self) -> Task:
        """A search's session and reward, by the service's own backend."""
        pipeline = FluxModularPipeline(workflow=TEXT.text)
        pipeline.update_components(**self.parts)
        lay_out_for_speed(
            pipeline, self.transformer.device
        )  # the decoder of every arm, since all share the networks
        backend = ModularBackend(pipeline, {False: pipeline.blocks}, self.prompt)
        [way] = backend.ways.values()
        backend.ways = {False: replace(way, stages=replace(way.stages, encode=()))}
        session = backend.prepare("", self.size.pixels, self.size.pixels)
        return Task(session, Composite({"clip": Part(self.reward)}), "", str(self.transformer.device))

    def pipeline(self) -> Any:  # noqa: ANN401 -- diffusers' types know nothing of tensors for pictures
        """The pipeline that diffusers has."""
        without: dict[str, Any] = dict.fromkeys(
            ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        )
        pipeline = FluxPipeline(**self.parts, **without)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@contextmanager
def weights_in(dtype: torch.dtype) -> Iterator[None]:
    """Make new weights in this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
