"""`compressibility` and `incompressibility`, by real JPEG files."""

from io import BytesIO

import pytest
import torch
from PIL import Image
from torch import Tensor

from models.rewards.compressibility import Compressibility
from models.rewards.incompressibility import Incompressibility


def pictures() -> Tensor:
    """Flat, slanted, noisy: 3 pictures in rising order of file size."""
    noise = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))
    slope = torch.linspace(0, 1, 64).expand(3, 48, 64)
    return torch.stack([torch.full_like(noise, 0.5), slope, noise])


def bytes_on_disk(image: Tensor) -> int:
    buffer = BytesIO()
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return len(buffer.getvalue())


def test_scores_are_file_sizes_in_thousands_of_bytes() -> None:
    expected = [bytes_on_disk(image) / 1000 for image in pictures()]
    assert Incompressibility().score(pictures(), "").tolist() == pytest.approx(expected)
    assert Compressibility().score(pictures(), "").tolist() == pytest.approx([-size for size in expected])


def test_flat_is_compressible_and_noise_is_not() -> None:
    flat, slope, noise = Compressibility().score(pictures(), "").tolist()
    assert 0 > flat > slope > 2 * slope > noise


def test_values_outside_the_unit_interval_are_clipped_not_wrapped() -> None:
    images = pictures()[2:]
    beyond = (images - 0.5) * 4 + 0.5
    reward = Incompressibility()
    assert torch.equal(reward.score(beyond, ""), reward.score(beyond.clamp(0, 1), ""))
