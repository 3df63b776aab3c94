"""Reward for the right number of the objects asked for, by the learned detector."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.protocol import Facts
from models.shapes.detector import WEIGHTS, heat
from models.shapes.world import Description, parse

SHARPNESS = 0.5


class ObjectCount:
    """exp(-0.5 RSS), RSS = sum over the groups asked for of (soft count - wanted)^2; others do not matter.

    The role of the counting reward of arXiv 2503.19385, section 5.2, bounded so that rewards can be added.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1.0,
        differentiable=True,
        source="residual sum of squares as in arXiv 2503.19385; detector learned here",
        weights=WEIGHTS,
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `Reward.score`. Raises ValueError when the prompt names no coloured shape."""
        return self.grade(heat(images, self.device), parse(prompt))

    @staticmethod
    def grade(heat_map: Tensor, description: Description) -> Tensor:
        """Scores [b] of what the detector sees, [b, CLASSES, 8, 8] (see `detector.heat`)."""
        wanted = torch.from_numpy(description.counts()).to(heat_map.device)
        asked = wanted > 0
        counts = heat_map.sum((2, 3))[:, asked]
        return torch.exp(-SHARPNESS * (counts - wanted[asked]).square().sum(1))
