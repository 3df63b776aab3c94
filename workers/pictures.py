"""Tensors as picture files."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contracts.requests import OutputFormat

OPTIONS: dict[OutputFormat, dict[str, int | bool]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95},
    "webp": {"lossless": True},
}
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
"""[h, w, 3]."""


def pixels(image: Tensor) -> Pixels:
    """A picture [3, h, w] in [0, 1] as [h, w, 3] bytes on the CPU."""
    scaled = image.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).contiguous().cpu().numpy()


def encode(picture: Pixels, kind: OutputFormat = "png") -> bytes:
    """The bytes of a picture file; the same pixels always give the same bytes."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind.upper(), **OPTIONS[kind])
    return buffer.getvalue()
