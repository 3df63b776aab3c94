"""Reward for sharp pictures."""

from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.luma import luma
from models.rewards.protocol import Facts


class Sharpness:
    """Variance over the inner pixels of the Laplacian of the luma, on a scale of 0 to 255.

    Pech-Pacheco, Cristobal, Chamorro-Martinez, Fernandez-Valdivia, "Diatom autofocusing in brightfield
    microscopy: a comparative study", ICPR 2000. Noise counts as sharp.
    Pictures need at least 3 x 3 pixels.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1_040_400.0,  # the Laplacian lies within +- 4 (255)
        differentiable=True,
        source="Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548",
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        y = 255 * luma(images.to(self.device, torch.float32))
        neighbours = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
        return (neighbours - 4 * y[:, 1:-1, 1:-1]).var((1, 2), correction=0)
