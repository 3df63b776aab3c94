"""Reward for pictures that people prefer for the prompt, as learned from HPD v2."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from transformers import CLIPModel

from models.rewards.openclip import transformers_names
from models.rewards.pairs import CLIP_LENGTH, Pairs
from models.rewards.protocol import Facts
from models.rewards.repository import load_network, load_preprocessing, load_tokenizer, needed

PREFIX = "model."


class Hps:
    """HPS v2.1: cos(picture, prompt) of a CLIP-H trained on preferences.

    Wu, Hao, Sun, Chen, Zhu, Zhao, Li, "Human Preference Score v2", 2023, arXiv 2306.09341, section 4; as its
    program has it, a picture's longer edge is resized and the rest is black. The authors' weights are a
    pickle; RE-N-Y/hpsv21 has the same as safetensors under open_clip's names.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=-1.0,
        maximum=1.0,
        differentiable=True,
        source="arXiv 2306.09341, section 4",
        fetch=(
            "RE-N-Y/hpsv21 model.safetensors",
            "laion/CLIP-ViT-H-14-laion2B-s32B-b79K --include '*.json' merges.txt",
        ),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "hps", self.facts)
        network = load_network(CLIPModel, self.folder, self.device, rename=named)
        tokenizer, pixels = load_tokenizer(self.folder), load_preprocessing(self.folder, fit="longest")
        self.pairs = Pairs(network, tokenizer, pixels, length=CLIP_LENGTH)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        return self.pairs.cosine(images, prompt)


def named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's weights, under transformers' names."""
    return transformers_names({name.removeprefix(PREFIX): weight for name, weight in weights.items()})
