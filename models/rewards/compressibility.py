"""Reward for pictures that make small JPEG files."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.jpeg import kilobytes
from models.rewards.protocol import Facts


class Compressibility:
    """Minus the size in kB of the picture's JPEG file at quality 95.

    Black, Janner, Du, Kostrikov, Levine, "Training Diffusion Models with Reinforcement Learning", 2023,
    arXiv 2305.13301, section 5.1. Grows with the number of pixels, so compare pictures of one size.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None, maximum=0.0, differentiable=False, source="arXiv 2305.13301, section 5.1"
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        return -kilobytes(images).to(self.device)
