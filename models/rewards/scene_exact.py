"""Reward of one for exactly the scene that a caption describes; meant for `held_out`."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from models.rewards.protocol import Facts
from models.shapes.judge import accepts
from models.shapes.world import IMAGE_SIZE, parse


class SceneExact:
    """1 where the programmatic judge finds every object asked for, nothing else, and the relation; else 0."""

    facts: ClassVar[Facts] = Facts(
        minimum=0.0, maximum=1.0, differentiable=False, source="models/shapes/judge.py, no learning"
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `Reward.score`. Raises ValueError when the prompt names no coloured shape."""
        description = parse(prompt)
        if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            images = functional.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
        verdicts = [accepts(image, description) for image in images.detach().float().cpu().numpy()]
        return torch.tensor(verdicts, dtype=torch.float32, device=self.device)
