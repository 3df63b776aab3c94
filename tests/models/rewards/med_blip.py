"""ImageReward with the modules, names and order of operations of its program, stated again."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

HEAD = 64


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [b, n, d] to [b, m, d] in heads of 64."""
    q, k, v = (x.unflatten(2, (-1, min(HEAD, x.shape[2]))).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def named(**modules: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(modules)


class Visual(nn.Module):
    """A vision transformer, normalised before each part."""

    def __init__(self, width: int, patch: int, side: int, depth: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, side**2 + 1, width))
        self.patch_embed = named(proj=nn.Conv2d(3, width, patch, patch))
        self.blocks = nn.ModuleList(
            named(
                norm1=nn.LayerNorm(width, 1e-6),
                attn=named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width)),
                norm2=nn.LayerNorm(width, 1e-6),
                mlp=named(fc1=nn.Linear(width, 2 * width), fc2=nn.Linear(2 * width, width)),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            attention, mlp = block["attn"], block["mlp"]  # type: ignore[index]
            x = x + attention["proj"](attend(*attention["qkv"](block["norm1"](x)).chunk(3, 2)))  # type: ignore[index]
            x = x + mlp["fc2"](gelu(mlp["fc1"](block["norm2"](x))))  # type: ignore[index]
        return self.norm(x)


def attention(width: int, seen: int) -> nn.ModuleDict:
    own = named(query=nn.Linear(width, width), key=nn.Linear(seen, width), value=nn.Linear(seen, width))
    return nn.ModuleDict({"self": own, "output": after(width, width)})


def after(width: int, out: int) -> nn.ModuleDict:
    return named(dense=nn.Linear(width, out), LayerNorm=nn.LayerNorm(out, 1e-12))


class Text(nn.Module):
    """BERT, normalised after each part, that looks at the picture in every layer."""

    def __init__(self, words: int, width: int, seen: int, depth: int) -> None:
        super().__init__()
        self.embeddings = named(
            word_embeddings=nn.Embedding(words, width),
            position_embeddings=nn.Embedding(64, width),
            LayerNorm=nn.LayerNorm(width, 1e-12),
        )
        self.encoder = named(
            layer=nn.ModuleList(
                named(
                    attention=attention(width, width),
                    crossattention=attention(width, seen),
                    intermediate=named(dense=nn.Linear(width, 2 * width)),
                    output=after(2 * width, width),
                )
                for _ in range(depth)
            )
        )

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        make = self.embeddings
        x = make["word_embeddings"](ids) + make["position_embeddings"](torch.arange(ids.shape[1]))
        x = make["LayerNorm"](x).expand(len(seen), -1, -1)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            for part, at in (("attention", None), ("crossattention", seen)):
                own, out = layer[part]["self"], layer[part]["output"]
                keys = x if at is None else at
                found = attend(own["query"](x), own["key"](keys), own["value"](keys))
                x = out["LayerNorm"](x + out["dense"](found))
            wide, out = gelu(layer["intermediate"]["dense"](x)), layer["output"]
            x = out["LayerNorm"](x + out["dense"](wide))
        return x


class Published(nn.Module):
    """What `ImageReward.pt` holds the state of, in a small size."""

    def __init__(self, words: int, side: int, patch: int) -> None:
        super().__init__()
        self.blip = named(
            visual_encoder=Visual(16, patch, side // patch, 2), text_encoder=Text(words, 16, 16, 2)
        )
        widths = (16, 1024, 128, 64, 16, 1)
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        dropped = [linear[0], nn.Dropout(0.2), linear[1], nn.Dropout(0.2), linear[2], nn.Dropout(0.1)]
        self.mlp = named(layers=nn.Sequential(*dropped, linear[3], linear[4]))

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Scores [b] of pixels [b, 3, h, w] for the ids [1, n] of a text."""
        first = self.blip["text_encoder"](ids, self.blip["visual_encoder"](pixels))[:, 0]
        return (self.mlp["layers"](first)[:, 0] - 0.16717362830052426) / 1.0333394966054072
