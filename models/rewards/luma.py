"""Luma of pictures: the grey value an eye gives a colour."""

import torch
from torch import Tensor

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def luma(images: Tensor) -> Tensor:
    """Luma [b, h, w] in [0, 1] of gamma-coded pictures [b, 3, h, w] (ITU-R BT.601-7, section 2.5.1)."""
    weights = torch.tensor([RED, GREEN, BLUE], dtype=images.dtype, device=images.device)
    return torch.einsum("bchw,c->bhw", images, weights)
