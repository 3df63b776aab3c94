"""Size of pictures as JPEG files."""

from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

QUALITY = 95


def kilobytes(images: Tensor) -> Tensor:
    """File size [b] in kB (1000 bytes) of pictures [b, 3, h, w] in [0, 1], by libjpeg at quality 95.

    Bytes depend on the version of Pillow's JPEG library, in the order of a percent.
    """
    pixels = (images.detach().float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
    sizes = [file_size(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pixels]
    return torch.tensor(sizes, dtype=torch.float32) / 1000


def file_size(image: Image.Image) -> int:
    """Bytes of a picture's JPEG file."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.tell()
