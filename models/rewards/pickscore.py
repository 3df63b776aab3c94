"""Reward for pictures that people would pick for the prompt, as learned from Pick-a-Pic."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.pairs import load_clip
from models.rewards.protocol import Facts
from models.rewards.repository import needed


class PickScore:
    """exp(logit scale) cos(picture, prompt) of a CLIP-H trained on choices.

    Kirstain, Polyak, Singer, Matiana, Penna, Levy, "Pick-a-Pic", 2023, arXiv 2305.01569, section 4. The
    logit scale is the one in the weights.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None,
        maximum=None,
        differentiable=True,
        source="arXiv 2305.01569, section 4",
        fetch=("yuvalkirstain/PickScore_v1",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "pickscore", self.facts)
        self.pairs = load_clip(self.folder, self.device)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        return self.pairs.scale * self.pairs.cosine(images, prompt)
