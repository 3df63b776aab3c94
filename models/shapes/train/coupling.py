"""Noise that goes with a scene: a data-dependent coupling that makes the flow few-step from the start.

Flow matching may couple noise and data in any way that keeps both marginals (Albergo et al., "Stochastic
interpolants with data-dependent couplings", 2024). Here a scene's layout is read off its noise: the
occupied cells are those with the largest projections on one latent channel, the groups follow the order of
the projections on a second, offsets and sizes are further projections through the Gaussian distribution
function. All cells being alike, the layouts stay uniform. Training draws the noise given the scene, which
is the same joint distribution and needs no new rendering. See docs/decisions/0003-coupled-noise.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from models.shapes.world import (
    CELL_SIZE,
    CELLS,
    GRID,
    JITTER,
    MAX_OBJECTS,
    PAIRS,
    RADIUS_RANGE,
    Description,
    Relation,
    Scene,
)

LATENT_SHAPE = (4, 16, 16)
STRENGTH = 0.97  # correlation of a projection with the score it encodes; below 1 a layout is not quite fixed
TRIALS = 96  # enough: one of at most 13 pairs wins a trial, so all fail with probability 5e-4
_SPANS = ((0, 5), (5, 11), (11, 16))
_RELATIONS = list(Relation)


def templates() -> Tensor:
    """Orthonormal latent patterns [5, CELLS, 4 * 16 * 16]: cell means of 4 channels, tilt of channel 0."""
    patterns = np.zeros((5, CELLS, *LATENT_SHAPE), dtype=np.float32)
    for cell in range(CELLS):
        (top, bottom), (left, right) = _SPANS[cell // GRID], _SPANS[cell % GRID]
        for channel in range(4):
            patterns[channel, cell, channel, top:bottom, left:right] = 1
        tilt = np.sign(np.arange(top, bottom) - (top + bottom - 1) / 2)
        patterns[4, cell, 0, top:bottom, left:right] = tilt[:, None]
    flat = patterns.reshape(5, CELLS, -1)
    return torch.from_numpy(flat / np.linalg.norm(flat, axis=-1, keepdims=True))


@dataclass(frozen=True)
class Layouts:
    """What the noise of n scenes encodes.

    group: [n, CELLS] int64, group index of the object in a cell, -1 where empty.
    scores: [n, 3, CELLS] normal scores of the x offset, y offset and radius; nan where empty.
    relation: [n] int64, index of the relation or -1; pair: [n] int64, index of the cells among its pairs.
    """

    group: Tensor
    scores: Tensor
    relation: Tensor
    pair: Tensor

    def take(self, index: Tensor) -> Layouts:
        """The layouts of some scenes."""
        return Layouts(self.group[index], self.scores[index], self.relation[index], self.pair[index])


def layouts(descriptions: list[Description], scenes: list[Scene]) -> Layouts:
    """Read the layouts off scenes."""
    group = np.full((len(scenes), CELLS), -1)
    scores = np.full((len(scenes), 3, CELLS), np.nan, dtype=np.float32)
    relation = np.full(len(scenes), -1)
    pair = np.zeros(len(scenes), dtype=int)
    for n, (description, scene) in enumerate(zip(descriptions, scenes, strict=True)):
        members = [index for index, part in enumerate(description.groups) for _ in range(part.count)]
        group[n, list(scene.cells)] = members
        scores[n][:, list(scene.cells)] = _normal_scores(scene)
        if description.relation is not None:
            relation[n] = _RELATIONS.index(description.relation)
            pair[n] = PAIRS[description.relation].index((scene.cells[0], scene.cells[1]))
    return Layouts(*(torch.from_numpy(array) for array in (group, scores, relation, pair)))


def _normal_scores(scene: Scene) -> NDArray[np.float32]:
    low, high = RADIUS_RANGE
    uniform = np.array(
        [
            [(thing.x - (cell % GRID + 0.5) * CELL_SIZE + JITTER) / (2 * JITTER),
             (thing.y - (cell // GRID + 0.5) * CELL_SIZE + JITTER) / (2 * JITTER),
             (thing.radius - low) / (high - low)]
            for thing, cell in zip(scene.things, scene.cells, strict=True)
        ]
    )  # fmt: skip
    return ndtri(uniform.clip(1e-3, 1 - 1e-3)).T.astype(np.float32)


def noise_for(batch: Layouts, generator: torch.Generator, patterns: Tensor) -> Tensor:
    """Draw noise given the layouts: [n, 4, 16, 16], standard normal over scenes, coupled to each."""
    count = len(batch.group)
    occupied = batch.group >= 0
    occupancy = _ranked(torch.randn(count, CELLS, generator=generator), occupied.long(), generator)
    order = torch.randn(count, CELLS, generator=generator)
    # Only the occupied cells' values are put in order; the rest take no part.
    ranked = _ranked(order.masked_fill(~occupied, -torch.inf), _precedence(batch.group), generator)
    order = torch.where(occupied, ranked, order)
    related = (batch.relation >= 0).nonzero()[:, 0]
    if len(related):
        occupancy[related], order[related] = _related(batch.take(related), generator)
    free = torch.randn(count, 3, CELLS, generator=generator)
    wanted = torch.cat(
        [torch.stack([occupancy, order], 1), torch.where(batch.scores.isnan(), free, batch.scores)], 1
    )
    blur = torch.randn(wanted.shape, generator=generator)
    wanted = STRENGTH * wanted + (1 - STRENGTH**2) ** 0.5 * blur
    noise = torch.randn(count, patterns.shape[-1], generator=generator)
    basis = patterns.flatten(0, 1)
    noise += (wanted.flatten(1) - noise @ basis.T) @ basis
    return noise.view(count, *LATENT_SHAPE)


def _precedence(group: Tensor) -> Tensor:
    """Group 0 before group 1 before group 2 before empty."""
    return torch.where(group >= 0, MAX_OBJECTS - group, -1)


def _ranked(values: Tensor, precedence: Tensor, generator: torch.Generator) -> Tensor:
    """Permute each row so that larger values stand where precedence is larger; ties in random order."""
    key = precedence + torch.rand(values.shape, generator=generator)
    rank = key.argsort(1, descending=True).argsort(1)
    return values.sort(1, descending=True).values.gather(1, rank)


def _related(batch: Layouts, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Projections whose best pair (first by channel 0, second by channel 1) is the scene's, by rejection."""
    count = len(batch.relation)
    first = torch.randn(count, TRIALS, CELLS, generator=generator)
    second = torch.randn(count, TRIALS, CELLS, generator=generator)
    chosen = torch.zeros(count, dtype=torch.long)
    for index, relation in enumerate(_RELATIONS):
        rows = batch.relation == index
        pairs = torch.tensor(PAIRS[relation])
        winner = (first[rows][..., pairs[:, 0]] + second[rows][..., pairs[:, 1]]).argmax(-1)
        chosen[rows] = (winner == batch.pair[rows, None]).int().argmax(-1)
    at = torch.arange(count)
    return first[at, chosen], second[at, chosen]
