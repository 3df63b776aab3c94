"""Reward for the scene that a caption describes, by the learned detector."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.protocol import Facts
from models.shapes.detector import WEIGHTS, count_match, heat, relation_match
from models.shapes.world import Description, parse


class SceneMatch:
    """exp(-0.7 sum |soft count - wanted|) over all kinds of object, times how clearly the relation holds."""

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1.0,
        differentiable=True,
        source="learned here: models/shapes/train/detector.py",
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
        return count_match(heat_map, description) * relation_match(heat_map, description)
