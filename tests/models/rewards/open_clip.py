"""CLIP with the modules, names and order of operations of open_clip, stated again from its description."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPConfig


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": nn.GELU(), "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks, one after the other."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    """The picture's encoder."""

    def __init__(self, width: int, patch: int, patches: int, out: int, tower: Transformer) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = tower
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, out))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """Both encoders, in the shape that a configuration of transformers says."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        text: Any = config.text_config
        vision: Any = config.vision_config
        out = int(config.projection_dim or 0)
        towers = [
            Transformer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.num_hidden_layers)
            for c in (text, vision)
        ]
        patches = (vision.image_size // vision.patch_size) ** 2
        self.visual = Visual(vision.hidden_size, vision.patch_size, patches, out, towers[1])
        self.token_embedding = nn.Embedding(text.vocab_size, text.hidden_size)
        self.positional_embedding = nn.Parameter(torch.randn(text.max_position_embeddings, text.hidden_size))
        self.transformer = towers[0]
        self.ln_final = nn.LayerNorm(text.hidden_size)
        self.text_projection = nn.Parameter(torch.randn(text.hidden_size, out))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Unit vectors of texts [b, n], padded with zeros; the end has the highest number."""
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return normalize(x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection, dim=-1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit vectors of pixels [b, 3, h, w]."""
        return normalize(self.visual(pixels), dim=-1)
