"""BLIP's weights under the names that transformers gives them, from those of the authors' program."""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers import BlipConfig

VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
WIDTH_OF_A_HEAD = 64
RENAMED = (
    (r"blip\.visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.(.*)", r"vision_model.embeddings.patch_embedding.\1"),
    (r"blip\.visual_encoder\.norm\.(.*)", r"vision_model.post_layernorm.\1"),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.(.*)",
        r"vision_model.encoder.layers.\1.layer_norm\2.\3",
    ),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.(.*)",
        r"vision_model.encoder.layers.\1.self_attn.qkv.\2",
    ),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.(.*)",
        r"vision_model.encoder.layers.\1.self_attn.projection.\2",
    ),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.(mlp\..*)", r"vision_model.encoder.layers.\1.\2"),
    (r"blip\.(text_encoder\.(?!embeddings\.position_ids|pooler\.).*)", r"\1"),
)
PLACES = {"0": 0, "2": 1, "4": 2, "6": 3, "7": 4}
"""Of the head's layers among its dropouts, which do nothing here."""
HEAD = re.compile(r"mlp\.layers\.(\d)\.(.*)")


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are used, under their new names."""
    named = {name: new for name in state if (new := renamed(name))}
    return {new: state[name] for name, new in named.items()}


def renamed(name: str) -> str | None:
    """One weight's new name; None: it is not used."""
    if match := HEAD.fullmatch(name):
        return f"head.{PLACES[match[1]]}.{match[2]}"
    for pattern, new in RENAMED:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, new, name)
    return None


def config_of(state: Mapping[str, Tensor]) -> BlipConfig:
    """The configuration that the weights' shapes tell; a head of attention is 64 wide, as in every BLIP."""
    patch = state[f"{VISION}patch_embed.proj.weight"]
    words = state[f"{TEXT}embeddings.word_embeddings.weight"]
    places = state[f"{TEXT}embeddings.position_embeddings.weight"]
    side = round((state[f"{VISION}pos_embed"].shape[1] - 1) ** 0.5)
    vision = {
        "hidden_size": len(patch),
        "intermediate_size": len(state[f"{VISION}blocks.0.mlp.fc1.weight"]),
        "num_hidden_layers": layers(state, rf"{VISION}blocks\.(\d+)\."),
        "num_attention_heads": max(1, len(patch) // WIDTH_OF_A_HEAD),
        "patch_size": patch.shape[-1],
        "image_size": side * patch.shape[-1],
        "layer_norm_eps": 1e-6,
    }
    text = {
        "vocab_size": len(words),
        "max_position_embeddings": len(places),
        "hidden_size": words.shape[1],
        "intermediate_size": len(state[f"{TEXT}encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": layers(state, rf"{TEXT}encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, words.shape[1] // WIDTH_OF_A_HEAD),
        "encoder_hidden_size": len(patch),
    }
    return BlipConfig(vision_config=vision, text_config=text)


def layers(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand in the names that begin so."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
