"""Reward for pictures that CLIP finds close to their prompt."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.pairs import load_clip
from models.rewards.protocol import Facts
from models.rewards.repository import needed

WEIGHT = 2.5
PREFIX = "A photo depicts "


class ClipScore:
    """CLIPScore = 2.5 max(cos(picture, "A photo depicts " + prompt), 0), of CLIP ViT-B/32.

    Hessel, Holtzman, Forbes, Le Bras, Choi, "CLIPScore", 2021, arXiv 2104.08718, section 3.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=2.5,
        differentiable=True,
        source="arXiv 2104.08718, section 3",
        # Its main branch has a pickle only.
        fetch=("openai/clip-vit-base-patch32 --revision refs/pr/15",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "clip_score", self.facts)
        self.pairs = load_clip(self.folder, self.device)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        return WEIGHT * self.pairs.cosine(images, PREFIX + prompt).clamp(min=0)
