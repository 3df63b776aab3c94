"""Reflow: straighten the flow on its own (noise, picture) pairs.

2-rectification (Liu et al., "Flow Straight and Fast", 2023) fits the flow again on the fixed coupling of
noise with the picture the flow itself made of it, so that one step already lands near the end. The flow's own
mistakes would be fitted too; so in the first rounds each picture is replaced by the nearest one that its
caption is true of, which keeps the layout (docs/decisions/0004-reflow-on-corrected-pictures.md). The last
round takes them as they came (docs/decisions/0005-last-reflow-on-own-pictures.md).
"""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.shapes.train import flow
from models.shapes.train.evaluate import decode, generator_noise, sample
from models.shapes.train.flow import Batch, encode, fit, in_bfloat16, may_train, token_classes
from models.shapes.train.networks import Flow, pack, text_ids
from models.shapes.world import (
    CELL_SIZE,
    CELLS,
    COLOURS,
    GRID,
    JITTER,
    PAIRS,
    RADIUS_RANGE,
    SHAPES,
    TRAINING_MIX,
    TRIANGLE_DROP,
    UNIT_AREA,
    Description,
    Scene,
    Thing,
    describe,
    signed_distance,
    training_description,
)


@dataclass(frozen=True)
class Round:
    """One reflow: how many pairs the flow of before makes, and how many steps fit them.

    A corrected picture is what the caption asks for; one left as it came can be foretold better.
    """

    pairs: int
    steps: int
    corrected: bool = True


ROUNDS = (
    Round(pairs=24_000, steps=1500),
    Round(pairs=36_000, steps=2400),
    Round(pairs=20_000, steps=1400, corrected=False),
)
SOLVER_STEPS = 6
PEAK_RATE = 1.5e-3
HARD_SHARE = 0.7  # of the captions; the rest follow the training mix
HUBER = 0.1  # velocity error (root mean square over a token) where the loss turns from square to linear

FAINT = 0.08  # contrast with the background below which a pixel is background

_SPAN = int(CELL_SIZE) + 1
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)


def nearest_scene(image: NDArray[np.float32], description: Description) -> Scene:
    """The scene nearest to a picture [3, 64, 64] in pixels among those that the description is true of.

    Every cell proposes one place and size, its content's; objects go to cells at the least squared error.
    """
    background = float(np.clip(np.median(image), 0.92, 0.97))
    things, gain = _proposals(image, background)
    if description.relation is not None:
        first, second = (group.kind for group in description.groups)
        cells = max(
            PAIRS[description.relation], key=lambda pair: gain[pair[0], first] + gain[pair[1], second]
        )
        kinds = [first, second]
    else:
        wanted = np.array(description.kinds)
        rows, cells = linear_sum_assignment(gain[:, wanted].T, maximize=True)
        kinds = [int(kind) for kind in wanted[rows]]
    chosen = tuple(things[int(cell)][kind] for cell, kind in zip(cells, kinds, strict=True))
    return Scene(chosen, tuple(int(cell) for cell in cells), background)


def _proposals(
    image: NDArray[np.float32], background: float
) -> tuple[list[list[Thing]], NDArray[np.float32]]:
    """For each cell and class, the object that would stand there and the squared error it saves."""
    things: list[list[Thing]] = []
    gain = np.empty((CELLS, len(_PALETTE) * len(SHAPES)), dtype=np.float32)
    for cell in range(CELLS):
        left, top = int(cell % GRID * CELL_SIZE), int(cell // GRID * CELL_SIZE)
        offset = image[:, top : top + _SPAN, left : left + _SPAN] - background
        xs = np.arange(left, left + offset.shape[2], dtype=np.float32) + 0.5
        ys = np.arange(top, top + offset.shape[1], dtype=np.float32) + 0.5
        contrast = np.abs(offset).max(0)
        cover = np.where(contrast > FAINT, contrast, 0) / max(contrast.max(), FAINT)
        proposed: list[Thing] = []
        for index, shape in enumerate(SHAPES):
            x, y, radius = _fit(cover, xs, ys, cell, shape)
            drawn = np.clip(0.5 - signed_distance(shape, xs[None, :] - x, ys[:, None] - y, radius), 0, 1)
            colours = (_PALETTE - background)[:, :, None, None] * drawn
            gain[cell, index :: len(SHAPES)] = (offset**2).sum() - ((offset - colours) ** 2).sum((1, 2, 3))
            proposed.append(Thing(index, x, y, radius))
        things.append(
            [
                Thing(colour * len(SHAPES) + thing.kind, thing.x, thing.y, thing.radius)
                for colour in range(len(_PALETTE))
                for thing in proposed
            ]
        )
    return things, gain


def _fit(
    cover: NDArray[np.float32], xs: NDArray[np.float32], ys: NDArray[np.float32], cell: int, shape: str
) -> tuple[float, float, float]:
    """Centre and radius of a shape from the cover's centroid and area, as the world draws them."""
    centre_x, centre_y = (cell % GRID + 0.5) * CELL_SIZE, (cell // GRID + 0.5) * CELL_SIZE
    low, high = RADIUS_RANGE
    area = float(cover.sum())
    if area < 20:
        return centre_x, centre_y, (low + high) / 2
    radius = float(np.clip((area / UNIT_AREA[shape]) ** 0.5, low, high))
    drop = TRIANGLE_DROP * radius if shape == "triangle" else 0.0
    x = float((cover * xs[None, :]).sum() / area)
    y = float((cover * ys[:, None]).sum() / area) - drop
    return (
        float(np.clip(x, centre_x - JITTER, centre_x + JITTER)),
        float(np.clip(y, centre_y - JITTER, centre_y + JITTER)),
        radius,
    )


@dataclass(frozen=True)
class Pairs:
    """Noise and where it leads: noise, data [n, 64, 16] half; text [n, 16]; tokens [n, 64] classes."""

    noise: Tensor
    data: Tensor
    text: Tensor
    tokens: Tensor


def captions(count: int, rng: np.random.Generator) -> list[Description]:
    """Descriptions, most of them hard; none of the hard evaluation set that the base training leaves out."""
    splits = list(TRAINING_MIX)
    found: list[Description] = []
    while len(found) < count:
        hard = rng.random() < HARD_SHARE
        drawn = (
            describe(splits[rng.integers(len(splits))], rng, hard=True) if hard else training_description(rng)
        )
        if may_train(drawn):
            found.append(drawn)
    return found


@torch.inference_mode()
def make_pairs(net: Flow, autoencoder: AutoencoderKL, size: Round, seed: int) -> Pairs:
    """Solve the flow from noises; pair each with its picture, or with that of the nearest right scene."""
    count = size.pairs
    descriptions = captions(count, np.random.default_rng(seed))
    noise, text = generator_noise(count, seed), text_ids([str(description) for description in descriptions])
    scenes: list[Scene] = []
    ends: list[Tensor] = []
    started = time.monotonic()
    low = in_bfloat16(net)
    for start in range(0, count, 100):
        part = slice(start, start + 100)
        latents = sample(low, noise[part], text[part], SOLVER_STEPS)
        ends.append(latents.half())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pictures = decode(autoencoder, latents).float().numpy()
        scenes += [
            nearest_scene(picture, words) for picture, words in zip(pictures, descriptions[part], strict=True)
        ]
        if (start + 100) % 2000 == 0:
            print(f"pairs {start + 100}/{count} {time.monotonic() - started:.0f} s", flush=True)
    data = pack(encode(autoencoder, scenes)).half() if size.corrected else torch.cat(ends)
    tokens = torch.from_numpy(np.stack([token_classes(scene) for scene in scenes]))
    return Pairs(noise.half(), data, text, tokens)


def times(count: int, generator: torch.Generator) -> Tensor:
    """Training times: 35 % exactly 1, 40 % uniform in (0.7, 1), 25 % uniform below: [count]."""
    kind, place = torch.rand(count, generator=generator), torch.rand(count, generator=generator)
    return torch.where(
        kind < 0.35, torch.ones(count), torch.where(kind < 0.75, 0.7 + 0.3 * place, 0.7 * place)
    )


def batches(pairs: Pairs, size: int, seed: int) -> Iterator[Batch]:
    """Packed (x_t, t, text, velocity, token classes) on the fixed coupling, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        index = torch.randint(len(pairs.noise), (size,), generator=generator)
        noise, data = pairs.noise[index].float(), pairs.data[index].float()
        t = times(size, generator)
        yield (
            torch.lerp(data, noise, t[:, None, None]),
            t,
            pairs.text[index],
            noise - data,
            pairs.tokens[index],
        )


def pseudo_huber(predicted: Tensor, velocity: Tensor) -> Tensor:
    """Pseudo-Huber loss of the velocity error of tokens: sharper than squares where two ends compete."""
    return ((predicted - velocity).square().mean(-1) + HUBER**2).sqrt().mean() - HUBER


def straighten(net: Flow, autoencoder: AutoencoderKL, out: Path, size: Round, seed: int) -> Flow:
    """Make the pairs (or read them back from `out`) and fit `net` on them."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "pairs.pt"
    if not path.exists():
        torch.save(vars(make_pairs(net, autoencoder, size, seed)), path)
    pairs = Pairs(**torch.load(path, weights_only=True))
    print("pairs made", flush=True)
    return fit(
        lambda seed: batches(pairs, flow.BATCH, seed),
        autoencoder,
        out,
        steps=size.steps,
        peak=PEAK_RATE,
        loss=pseudo_huber,
        start=net,
    )
