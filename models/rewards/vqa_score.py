"""Reward for pictures of which a vision-language model says that they show what the prompt says."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from models.rewards.pixels import Preprocessing
from models.rewards.protocol import Facts, RewardLoadError
from models.rewards.repository import (
    load_network,
    load_tokenizer,
    needed,
    preprocessor_config,
    unloadable,
)

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
BEHIND = "<|vision_end|>"
QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
"""What Qwen2.5-VL's chat template makes of one picture and one question."""
ANSWER = "Yes"
OLD_LIMITS = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}


class VqaScore:
    """P("Yes" | picture, 'Does this figure show "{prompt}"? Please answer yes or no.') of Qwen2.5-VL.

    The probability of the answer's first token. Lin, Pathak, Li, Li, Xia, Neubig, Zhang, Ramanan,
    "Evaluating text-to-visual generation with image-to-text generation", 2024, arXiv 2404.01291, section 3.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1.0,
        differentiable=True,
        source="arXiv 2404.01291, section 3",
        fetch=("Qwen/Qwen2.5-VL-7B-Instruct",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "vqa_score", self.facts)
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.network = load_network(Qwen2_5_VLForConditionalGeneration, self.folder, self.device, dtype)
        self.patches = load_patches(self.folder)
        self.tokenizer = load_tokenizer(self.folder)
        self.yes = self._ids(ANSWER)[0]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        pixels, grid = self.patches(images.to(self.device, torch.float32))
        ids = self._conversation(prompt, int(grid.prod()) // self.patches.merge**2)
        token, rows = self.network.config.image_token_id, len(images)
        answer = self.network(
            input_ids=ids.expand(rows, -1),
            mm_token_type_ids=(ids == token).int().expand(rows, -1),
            pixel_values=pixels.to(self.network.dtype),
            image_grid_thw=grid.expand(rows, -1),
            logits_to_keep=1,
            use_cache=False,
        )
        return answer.logits[:, -1].float().softmax(-1)[:, self.yes]

    def _conversation(self, prompt: str, tokens: int) -> Tensor:
        """Ids [1, n] of the question about a picture of so many tokens."""
        question = self._ids(QUESTION.format(prompt), split_special_tokens=True)
        picture = [self.network.config.image_token_id] * tokens
        ids = [*self._ids(BEFORE), *picture, *self._ids(BEHIND), *question, *self._ids(AFTER)]
        return torch.tensor([ids], device=self.device)

    # A prompt's own "<|im_end|>" is text: what a client writes must not speak for anyone else.
    def _ids(self, text: str, *, split_special_tokens: bool = False) -> list[int]:
        tokens: Any = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=split_special_tokens
        )
        return list(tokens["input_ids"])


@dataclass(frozen=True)
class Patches:
    """Pictures cut as Qwen's vision encoder reads them: patches in squares of `merge` x `merge`.

    Attributes:
        config: the folder's `preprocessor_config.json`.
        patch: side of a patch, in pixels.
        merge: patches along a side that become one token.
        frames: how often a still picture is repeated.
        least: fewest pixels of a resized picture.
        most: most pixels.
    """

    config: dict[str, Any]
    patch: int
    merge: int
    frames: int
    least: int
    most: int

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches [b n, values] of pictures [b, 3, h, w] in [0, 1], and one picture's grid [1, 3]."""
        height, width = self.size(*images.shape[-2:])
        resize = Preprocessing.of({**self.config, "size": {"height": height, "width": width}})
        high, wide = height // self.patch, width // self.patch
        cut = resize(images).unflatten(2, (high // self.merge, self.merge, self.patch))
        cut = cut.unflatten(5, (wide // self.merge, self.merge, self.patch))
        # b, channel, row, row in square, y, column, column in square, x
        ordered = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)
        repeated = ordered.unsqueeze(6).expand(*ordered.shape[:6], self.frames, *ordered.shape[6:])
        return repeated.flatten(5).flatten(0, 4), torch.tensor([[1, high, wide]], device=images.device)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Multiples of a square, of about the same proportions, with neither too few pixels nor too many.

        Raises:
            ValueError: one edge is more than 200 times the other.
        """
        if max(height, width) > 200 * min(height, width):
            raise ValueError(f"a picture of {width} x {height} is too narrow for reward 'vqa_score'")
        unit = self.patch * self.merge
        edges = [round(edge / unit) * unit for edge in (height, width)]
        if edges[0] * edges[1] > self.most:
            shrink = math.sqrt(height * width / self.most)
            edges = [max(unit, math.floor(edge / shrink / unit) * unit) for edge in (height, width)]
        elif edges[0] * edges[1] < self.least:
            grow = math.sqrt(self.least / (height * width))
            edges = [math.ceil(edge * grow / unit) * unit for edge in (height, width)]
        return edges[0], edges[1]


def load_patches(folder: Path) -> Patches:
    """What the folder's `preprocessor_config.json` describes. Raises RewardLoadError."""
    try:
        config = preprocessor_config(folder)
        least, most = (
            config[old] if old in config else config["size"][new] for new, old in OLD_LIMITS.items()
        )
        patch, merge, frames = (config[k] for k in ("patch_size", "merge_size", "temporal_patch_size"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RewardLoadError(unloadable(folder, "preprocessor_config.json", str(error))) from error
    return Patches({"resample": 3} | config, patch, merge, frames, least, most)
