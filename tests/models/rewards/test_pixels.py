"""Our preprocessing of pictures is that of transformers' processors, which go through Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from models.rewards.pixels import Preprocessing

SIZES = [(224, 224), (64, 64), (512, 512), (300, 511), (1024, 96), (31, 77)]
TOLERANCE = 1.5 / 255
"""Of a pixel's value before the division by `std`: Pillow rounds to 8 bits after each of two passes."""


def picture(height: int, width: int) -> Image.Image:
    """Waves, edges and noise, at full contrast."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x[..., None] / np.array([3, 7, 19]) + y[..., None] / np.array([11, 5, 2]))
    noise = generator.normal(size=(height, width, 3))
    edges = ((x // 9 + y // 13) % 2)[..., None]
    return Image.fromarray(
        (255 * (0.3 + 0.2 * waves + 0.1 * noise + 0.4 * edges).clip(0, 1)).astype(np.uint8)
    )


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def worst(processor: CLIPImageProcessorPil | SiglipImageProcessorPil, height: int, width: int) -> float:
    """Largest difference from a processor of transformers, before the division by `std`."""
    image = picture(height, width)
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours = Preprocessing.of(processor.to_dict())(as_tensor(image))
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs() * torch.tensor(processor.image_std).view(1, 3, 1, 1)).max())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clips_pixels_are_those_of_pillow(height: int, width: int) -> None:
    assert worst(CLIPImageProcessorPil(), height, width) <= TOLERANCE


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_siglips_pixels_are_those_of_pillow(height: int, width: int, resample: int) -> None:
    assert worst(SiglipImageProcessorPil(resample=resample), height, width) <= TOLERANCE


def test_sizes_of_older_files_are_numbers() -> None:
    newer = CLIPImageProcessorPil().to_dict()
    older = {**newer, "size": 224, "crop_size": 224}
    assert Preprocessing.of(older) == Preprocessing.of(newer)


@pytest.mark.parametrize(("height", "width"), [(300, 511), (77, 31)])
def test_the_longer_edge_is_kept_and_the_rest_is_black(height: int, width: int) -> None:
    preprocessing = Preprocessing.of(CLIPImageProcessorPil().to_dict(), fit="longest")
    image = picture(height, width)
    scale = 224 / max(height, width)
    inner = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (224, 224))
    canvas.paste(inner, ((224 - inner.width) // 2, (224 - inner.height) // 2))
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (preprocessing.mean, preprocessing.std))
    ours = preprocessing(as_tensor(image)) * std + mean
    assert (ours - as_tensor(canvas)).abs().max() <= TOLERANCE
