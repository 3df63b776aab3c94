"""A small learned detector: soft counts of every colour and shape, and where they are.

Fully convolutional: [b, 3, 64, 64] to a heat map [b, CLASSES, 8, 8] of object centres in (0, 1).
Differentiable, and trained on blurred, mixed and half-drawn pictures, so that it grades what it is unsure of.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.shapes.world import CLASSES, IMAGE_SIZE, Description, Relation

WEIGHTS = Path(__file__).parent / "detector.safetensors"
MAP_SIZE = 8
COUNT_SHARPNESS = 0.7
RELATION_SHARPNESS = 0.5
RELATION_OFFSET = 8.0


class Detector(nn.Module):
    """Heat-map logits of object centres."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, 24, stride=2),
            _block(24, 48, stride=2),
            _block(48, 48),
            _block(48, 96, stride=2),
            _block(96, 96),
            _block(96, 96),
        )
        self.head = nn.Conv2d(96, CLASSES, 1)
        if self.head.bias is not None:
            nn.init.constant_(self.head.bias, -4.0)  # objects are rare

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, CLASSES, 8, 8] of images [b, 3, 64, 64] in [0, 1]."""
        return self.head(self.body(images * 2 - 1))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


@cache
def load(device: torch.device) -> Detector:
    """The shipped detector, one for all rewards on a device."""
    # Whoever is first may be in inference mode; through weights made in it no gradient would ever flow.
    with torch.inference_mode(mode=False):
        detector = Detector()
        detector.load_state_dict(load_file(WEIGHTS))
        return detector.eval().requires_grad_(requires_grad=False).to(device)


def heat(images: Tensor, device: torch.device) -> Tensor:
    """Centre probabilities [b, CLASSES, 8, 8] of images [b, 3, h, w]; other sizes are resized to 64 x 64."""
    images = images.to(device, torch.float32)
    if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        images = functional.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
    return load(device)(images).sigmoid()


def count_match(heat_map: Tensor, description: Description) -> Tensor:
    """exp(-0.7 sum over all classes |soft count - wanted|): [b] in (0, 1]."""
    wanted = torch.from_numpy(description.counts()).to(heat_map)
    return torch.exp(-COUNT_SHARPNESS * (heat_map.sum((2, 3)) - wanted).abs().sum(1))


def relation_match(heat_map: Tensor, description: Description) -> Tensor:
    """How clearly the two objects' expected centres stand in the relation: [b]; ones without one."""
    if description.relation is None:
        return heat_map.new_ones(len(heat_map))
    first, second = (_centre(heat_map[:, group.kind]) for group in description.groups)
    x, y = (second - first).unbind(1)
    along, across = {
        Relation.ABOVE: (y, x),
        Relation.BELOW: (-y, x),
        Relation.LEFT: (x, y),
        Relation.RIGHT: (-x, y),
    }[description.relation]
    clear = torch.minimum(along, along - across.abs() + RELATION_OFFSET / 2)
    return torch.sigmoid(RELATION_SHARPNESS * (clear - RELATION_OFFSET))


def _centre(heat_map: Tensor) -> Tensor:
    """Expected position in pixels, x and y: [b, 8, 8] to [b, 2]."""
    centres = (torch.arange(MAP_SIZE, device=heat_map.device) + 0.5) * (IMAGE_SIZE / MAP_SIZE)
    mass = heat_map.sum((1, 2)).clamp_min(1e-6)
    x = (heat_map.sum(1) * centres).sum(1) / mass
    y = (heat_map.sum(2) * centres).sum(1) / mass
    return torch.stack([x, y], 1)
