"""Reward for pictures that SigLIP 2 takes for what the prompt says."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from transformers import SiglipModel

from models.rewards.pairs import Pairs
from models.rewards.protocol import Facts
from models.rewards.repository import load_network, load_preprocessing, load_tokenizer, needed

LENGTH = 64
"""Tokens of a text, padded to that: what the network was trained on."""


class Siglip:
    """P(the prompt belongs to the picture) = sigmoid(exp(scale) cos(picture, prompt) + bias).

    Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid loss for language image pre-training", 2023, arXiv 2303.15343,
    section 3; weights of SigLIP 2, arXiv 2502.14786, whose prompts are in lower case.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1.0,
        differentiable=True,
        source="arXiv 2303.15343, section 3, and 2502.14786",
        fetch=("google/siglip2-so400m-patch14-384",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "siglip", self.facts)
        network = load_network(SiglipModel, self.folder, self.device)
        self.pairs = Pairs(
            network,
            load_tokenizer(self.folder),
            load_preprocessing(self.folder),
            padding="max_length",
            length=LENGTH,
        )
        self.bias = network.logit_bias

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        cosine = self.pairs.cosine(images, prompt.lower())
        return torch.sigmoid(self.pairs.scale * cosine + self.bias)
