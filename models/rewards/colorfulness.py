"""Reward for colourful pictures."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vector_norm

from models.rewards.protocol import Facts


class Colorfulness:
    """The metric M3 of Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003.

    With rg = R - G and yb = (R + G) / 2 - B over the pixels, on the paper's scale of 0 to 255: the length of
    their standard deviations, plus .3 times the length of their means. The paper reads 0 as not colourful, 15
    slightly, 33 moderately, 45 averagely, 59 quite, 82 highly and 109 extremely colourful.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=None,
        differentiable=True,
        source="Hasler and Suesstrunk 2003, doi 10.1117/12.477378",
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        red, green, blue = (255 * images.to(self.device, torch.float32)).flatten(2).unbind(1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue], 1)
        means = opponents.mean(2, keepdim=True)
        # A norm, unlike a square root, has a gradient at grey pictures, where both lengths are zero.
        deviation = vector_norm(opponents - means, dim=(1, 2)) / opponents.shape[2] ** 0.5
        return deviation + 0.3 * vector_norm(means, dim=(1, 2))
