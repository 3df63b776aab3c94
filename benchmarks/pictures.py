"""How different pictures are: by the detector's features, in few numbers."""

import base64
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.shapes.detector import load

NUMBERS = 16
UNIT = 1 / 16
"""One step of a stored number; they have a standard deviation near 2."""


@cache
def _projection(size: int) -> Tensor:
    numbers = np.random.default_rng(0).standard_normal((size, NUMBERS), dtype=np.float32)
    return torch.as_tensor(numbers) / NUMBERS**0.5


def print_of(images: Tensor) -> list[str]:
    """Prints of pictures [b, 3, 64, 64] in [0, 1]: features of unit length at 8 x 8 places, projected.

    A random projection keeps squared distances on average (Johnson and Lindenstrauss), so a print of 16 bytes
    tells them to within a third, and the mean over many pairs much better.
    """
    features = load(torch.device("cpu")).body(images.cpu().float() * 2 - 1)
    flat = torch.nn.functional.normalize(features, dim=1).flatten(1)
    numbers = (flat @ _projection(flat.shape[1]) / UNIT).round().clamp(-127, 127).to(torch.int8)
    return [base64.b64encode(row.tobytes()).decode() for row in numbers.numpy()]


def distance(first: str, second: str) -> float:
    """Root mean square over the 8 x 8 places: 0 for the same features, at most 2."""
    return float(np.sqrt(np.square(_numbers(first) - _numbers(second)).sum() / 64))


def _numbers(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), np.int8).astype(np.float32) * np.float32(UNIT)
