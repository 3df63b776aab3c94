"""From pictures to the pixels that a vision network was trained on, by tensors alone: differentiable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

MODES = {2: "bilinear", 3: "bicubic"}
"""Of Pillow's numbers for resampling, those that vision networks of today use."""
Fit = Literal["shortest", "longest", "stretch"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize with antialiasing, crop or pad, normalise.

    Its pixels are those of the processors of transformers, which go through 8-bit pictures in Pillow, to
    1.5/255 before the division by `std`; where Pillow takes columns before rows, which it does for some
    narrow pictures, single ones differ by 5/255. Unlike theirs, they have a gradient.

    Attributes:
        height: of the pixels.
        width: of the pixels.
        mode: how to resize.
        mean: of each channel, subtracted.
        std: of each channel, divided by.
        fit: `shortest` resizes the shorter edge to `edge` and crops the middle; `longest` resizes the longer
            one and pads with black; `stretch` heeds no proportions.
        edge: see `fit`.
    """

    height: int
    width: int
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit
    edge: int

    @classmethod
    def of(cls, config: Mapping[str, Any], fit: Fit | None = None) -> Self:
        """What a `preprocessor_config.json` describes.

        Args:
            config: the file's content; where sizes are plain numbers, it is of the old kind.
            fit: overrides the file's own.

        Raises:
            ValueError: a resampling or a size that this class does not know.
        """
        size, crop = sides(config["size"]), sides(config.get("crop_size", config["size"]))
        cropped = config.get("do_center_crop", "shortest_edge" in size)
        out = crop if cropped else size
        edge = size.get("shortest_edge", min(out.get("height", 0), out.get("width", 0)))
        if config.get("resample") not in MODES or not {"height", "width"} <= out.keys():
            raise ValueError(f"resample {config.get('resample')} to {size}, crop {crop} is not supported")
        return cls(
            height=out["height"],
            width=out["width"],
            mode=MODES[config["resample"]],
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            fit=fit or ("shortest" if cropped else "stretch"),
            edge=edge,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Pixels [b, 3, height, width] of pictures [b, 3, h, w] in [0, 1]."""
        pixels = self._placed(self._resized(images, *self._inner(*images.shape[-2:])))
        mean, std = (torch.tensor(c, device=images.device).view(1, -1, 1, 1) for c in (self.mean, self.std))
        return (pixels - mean) / std

    def _resized(self, images: Tensor, height: int, width: int) -> Tensor:
        """Pictures of another size, in two passes as Pillow's: rows first, unless only columns shrink.

        Each is cut to the range of colours: bicubic weights overshoot at edges.
        """
        high, wide = images.shape[-2:]
        between = (height, wide) if height < high and width > wide else (high, width)
        for size in (between, (height, width)):
            images = functional.interpolate(images, size, mode=self.mode, antialias=True).clamp(0, 1)
        return images

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Size to resize to, before anything is cut off or added."""
        if self.fit == "stretch":
            return self.height, self.width
        if self.fit == "longest":
            scale = self.edge / max(height, width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        short = min(height, width)
        return self.edge * height // short, self.edge * width // short

    def _placed(self, pixels: Tensor) -> Tensor:
        """Cut off or add the same on either side; where that is odd, one less before than behind."""
        down, across = self.height - pixels.shape[-2], self.width - pixels.shape[-1]
        top, left = int(down / 2), int(across / 2)
        return functional.pad(pixels, (left, across - left, top, down - top))


def sides(size: int | Mapping[str, int]) -> dict[str, int]:
    """A size as newer files write it. A number was the shorter edge of a resize, and a square to crop."""
    if isinstance(size, int):
        return {"shortest_edge": size, "height": size, "width": size}
    return dict(size)
