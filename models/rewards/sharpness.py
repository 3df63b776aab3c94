"""Reward for sharp pictures."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.luma import luma
from models.rewards.protocol import Facts


class Sharpness:
    """Mean modified Laplacian of the luma, |d2y/dh2| + |d2y/dw2| over the inner pixels, luma in [0, 1].

    Nayar and Nakagawa, "Shape from Focus", 1994. Taking each direction's magnitude keeps the two from
    cancelling. Blurred pictures are near 0; noise counts as sharp, and a checkerboard of single pixels has
    the most, 4. Pictures need at least 3 x 3 pixels.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=None,
        differentiable=True,
        source="Nayar and Nakagawa 1994, doi 10.1109/34.308479",
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        y = luma(images.to(self.device, torch.float32))
        vertical = y.diff(n=2, dim=1)[:, :, 1:-1].abs()
        horizontal = y.diff(n=2, dim=2)[:, 1:-1, :].abs()
        return (vertical + horizontal).mean((1, 2))
