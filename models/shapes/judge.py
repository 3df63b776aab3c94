"""The programmatic judge: reads the objects out of a picture and compares them with a caption.

Pixels go to the nearest palette colour, colours fall into connected components, and a
component's shape is the template (circle, square, triangle) that overlaps it best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.shapes.world import (
    CLASSES,
    COLOUR_NAMES,
    COLOURS,
    SHAPES,
    TRIANGLE_BOX_DROP,
    UNIT_AREA,
    Description,
    holds,
    signed_distance,
)

MIN_COVER = 0.5
BACKGROUND_TOLERANCE = 0.12
SPECK_AREA = 14
MIN_AREA = 70
MIN_IOU = 0.78
RELATION_MARGIN = 5.0

_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Found:
    """An object read from a picture; `kind` is None for something that is no clean shape."""

    kind: int | None
    x: float
    y: float


def read_objects(image: NDArray[np.float32]) -> list[Found]:
    """Find the objects of one picture [3, h, w] in [0, 1]."""
    labels = _colour_labels(image)
    found: list[Found] = []
    for colour in range(len(COLOUR_NAMES)):
        regions = np.empty(labels.shape, dtype=np.int32)
        ndimage.label(labels == colour, structure=_EIGHT_CONNECTED, output=regions)
        for index, window in enumerate(ndimage.find_objects(regions), start=1):
            mask = regions[window] == index
            if mask.sum() >= SPECK_AREA:
                found.append(_read(mask, window, colour))
    return found


def _colour_labels(image: NDArray[np.float32]) -> NDArray[np.int64]:
    """Palette index of each pixel covered at least half by a colour, -1 elsewhere.

    A pixel is read as background + cover * (colour - background), so that a rim keeps its object's colour.
    """
    pixels = image.transpose(1, 2, 0)
    background = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    towards = _PALETTE - background
    offset = pixels - background
    cover = (offset @ towards.T) / (towards**2).sum(-1)
    residual = np.linalg.norm(offset[:, :, None] - cover.clip(0, 1.1)[..., None] * towards, axis=-1)
    nearest = residual.argmin(-1)
    own_cover = np.take_along_axis(cover, nearest[..., None], -1)[..., 0]
    covered = (own_cover >= MIN_COVER) & (np.abs(offset).max(-1) > BACKGROUND_TOLERANCE)
    return np.where(covered, nearest, -1)


def _read(mask: NDArray[np.bool_], window: tuple[slice, slice], colour: int) -> Found:
    rows, columns = np.nonzero(mask)
    y, x = rows.mean() + window[0].start + 0.5, columns.mean() + window[1].start + 0.5
    if mask.sum() < MIN_AREA:
        return Found(None, float(x), float(y))
    overlaps = [_best_overlap(mask, shape) for shape in SHAPES]
    best = int(np.argmax(overlaps))
    kind = colour * len(SHAPES) + best if overlaps[best] >= MIN_IOU else None
    return Found(kind, float(x), float(y))


def _best_overlap(mask: NDArray[np.bool_], shape: str) -> float:
    """IoU of the mask with a template of the same area and bounding-box centre, best over small shifts."""
    height, width = mask.shape
    area = float(mask.sum())
    radius = float(np.sqrt(area / UNIT_AREA[shape]))
    rise = 0.0 if shape != "triangle" else TRIANGLE_BOX_DROP * radius
    pad = 3
    padded = np.pad(mask, pad)
    ys = (np.arange(height + 2 * pad) - pad + 0.5 - height / 2).astype(np.float32)
    xs = (np.arange(width + 2 * pad) - pad + 0.5 - width / 2).astype(np.float32)
    best = 0.0
    for shift in (-0.5, 0.0, 0.5):
        template = signed_distance(shape, xs[None, :], ys[:, None] + shift + rise, radius) < 0
        union = np.logical_or(template, padded).sum()
        best = max(best, float(np.logical_and(template, padded).sum() / union))
    return best


def accepts(image: NDArray[np.float32], description: Description) -> bool:
    """Whether the picture [3, h, w] in [0, 1] shows exactly what is described, and nothing else."""
    found = read_objects(image)
    kinds = [thing.kind for thing in found if thing.kind is not None]
    if len(kinds) != len(found) or not np.array_equal(
        np.bincount(kinds, minlength=CLASSES), description.counts()
    ):
        return False
    if description.relation is None:
        return True
    at = {thing.kind: (thing.x, thing.y) for thing in found}
    first, second = (group.kind for group in description.groups)
    return holds(description.relation, at[first], at[second], RELATION_MARGIN)
