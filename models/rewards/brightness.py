"""Reward for bright pictures."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.luma import luma
from models.rewards.protocol import Facts


class Brightness:
    """Mean luma: 0 black, 1 white (luma by ITU-R BT.601-7)."""

    facts: ClassVar[Facts] = Facts(
        minimum=0.0, maximum=1.0, differentiable=True, source="ITU-R BT.601-7, section 2.5.1"
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        return luma(images.to(self.device, torch.float32)).mean((1, 2))
