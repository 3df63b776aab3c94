"""How much memory a model takes on its device, estimated from headers and configurations; loads nothing.

The factors are fitted to what torch allocates for the networks of FLUX.1, FLUX.2, Stable Diffusion 3.5,
Qwen-Image and Z-Image at their full sizes (tests/models/test_estimate.py). What a GPU's libraries take beside
is not in them, nor are gradients under reward guidance.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import DENOISERS

BYTES = {"float32": 4.0, "bfloat16": 2.0}
QUANTISED = {"fp8": 1.0, "int8": 1.0, "nf4": 0.5625}
"""Bytes a weight; 4 bits come with a float32 for each 64."""
OFFLOADED = 0.1
"""Part of the largest network that lies on the device while its layers come one by one: two of them."""
FORWARD = 24
"""Numbers a token and channel that a transformer holds at its peak."""
TEXT_TOKENS = 512
TOKEN_PIXELS = 16 * 16
COMMON_WIDTH = 3072
COMMON_DECODE = 3 * 256.0


@dataclass(frozen=True)
class Sizes:
    """What of a model's configurations decides how much memory a picture takes.

    Attributes:
        width: channels of the transformer.
        decode: numbers a pixel that the VAE holds at its peak.
        tile: side in pixels of what it decodes at once where it decodes in tiles.
    """

    width: int = COMMON_WIDTH
    decode: float = COMMON_DECODE
    tile: int = 512

    @classmethod
    def of(cls, folder: Path) -> "Sizes":
        """By the configurations in a model's folder; what they do not say is as in the usual model."""
        transformer, vae = (config(folder / name) for name in ("transformer", "vae"))
        return cls(
            width=width(transformer) or COMMON_WIDTH,
            decode=decode(vae) or COMMON_DECODE,
            tile=vae.get("sample_size") or cls.tile,
        )

    def picture(self, width: int, height: int, dtype: str, *, tiled: bool) -> int:
        """Bytes that a picture of width x height pixels takes in a call, at the worst moment."""
        pixels = width * height
        forward = FORWARD * (pixels / TOKEN_PIXELS + TEXT_TOKENS) * self.width
        decoded = self.decode * (min(pixels, self.tile**2) if tiled else pixels)
        return round(max(forward, decoded) * BYTES[dtype])


def config(folder: Path) -> dict[str, Any]:
    """The configuration of a network; empty where there is none."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def width(transformer: Mapping[str, Any]) -> int | None:
    """Channels of a transformer."""
    heads, size = transformer.get("num_attention_heads"), transformer.get("attention_head_dim")
    if heads and size:
        return heads * size
    return transformer.get("dim") or transformer.get("hidden_size")


def decode(vae: Mapping[str, Any]) -> float | None:
    """Numbers a pixel that a VAE holds at its peak, before its last block narrows down.

    Qwen-Image's is made for videos: its convolutions see three pictures, two of them empty.
    """
    if "block_out_channels" in vae:
        return 3.0 * vae["block_out_channels"][min(1, len(vae["block_out_channels"]) - 1)]
    if "base_dim" in vae:
        return 9.0 * vae["base_dim"] * vae["dim_mult"][1]
    return None


def loaded(parameters: Mapping[str, float], dtype: str, quantisation: str) -> dict[str, int]:
    """Bytes of each network once loaded, by how many weights it has."""
    transformer = QUANTISED.get(quantisation, BYTES[dtype])
    return {
        name: round(count * (transformer if name in DENOISERS else BYTES[dtype]))
        for name, count in parameters.items()
    }


def resident(networks: Mapping[str, int], offload: str) -> int:
    """Bytes of weights that lie on the device while pictures are made."""
    moved = [size for name, size in networks.items() if name != "vae"]
    if offload == "none" or not moved:
        return sum(networks.values())
    if offload == "text_encoders":
        return sum(size for name, size in networks.items() if not name.startswith("text_encoder"))
    at_once = max(moved) if offload == "model" else OFFLOADED * max(moved)
    return round(networks.get("vae", 0) + at_once)


def needed(networks: Mapping[str, int], offload: str, rewards: int = 0, picture: int = 0) -> int:
    """Bytes at the worst moment, with the weights of rewards and while a picture is made.

    Text encoders that come to encode a prompt find transformer, VAE and rewards there.
    """
    encoding = sum(networks.values()) if offload == "text_encoders" else 0
    return rewards + max(encoding, resident(networks, offload) + picture)


def in_host(parameters: Mapping[str, float], dtype: str, quantisation: str, offload: str) -> int:
    """Bytes of weights in the CPU's memory of a model that computes on a GPU, at the worst moment.

    Those that are offloaded lie there, and a transformer or U-Net that shrinks as it is read passes through.
    """
    networks = loaded(parameters, dtype, quantisation)
    kept = {name: size for name, size in networks.items() if name != "vae" and is_kept(name, offload)}
    if quantisation in {"fp8", "int8"}:
        passing = parameters.keys() & DENOISERS
        kept |= {name: round(parameters[name] * BYTES[dtype]) for name in passing}
    return sum(kept.values())


def is_kept(name: str, offload: str) -> bool:
    """Whether a network lies in the CPU's memory."""
    return offload in {"model", "group"} or (offload == "text_encoders" and name.startswith("text_encoder"))
