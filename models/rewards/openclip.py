"""CLIP's weights under the names that transformers gives them, from those that open_clip gives them."""

from collections.abc import Iterator, Mapping

from torch import Tensor

OUTSIDE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TURNED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
TOWERS = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
JOINED = ("q_proj", "k_proj", "v_proj")


def transformers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `CLIPModel`. Buffers are left out, and so is what is no part of CLIP."""
    return dict(pair for name, weight in weights.items() for pair in renamed(name, weight))


def renamed(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What one of open_clip's weights becomes: three for a joined query, key and value, else one."""
    if name in OUTSIDE:
        yield OUTSIDE[name], weight
    elif name in TURNED:
        yield TURNED[name], weight.T.contiguous()
    for before, after in TOWERS.items():
        if name.startswith(before):
            number, _, rest = name.removeprefix(before).partition(".")
            yield from in_block(f"{after}{number}.", rest, weight)


def in_block(block: str, name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Likewise, inside one block of a tower."""
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        for part, piece in zip(JOINED, weight.chunk(3), strict=True):
            yield f"{block}self_attn.{part}.{kind}", piece.contiguous()
        return
    layer, _, kind = name.rpartition(".")
    yield f"{block}{INSIDE[layer]}.{kind}", weight
