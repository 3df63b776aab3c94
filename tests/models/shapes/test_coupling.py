"""The coupling must leave the noise standard normal and carry the layout."""

import numpy as np
import pytest
import torch

from models.shapes.train.coupling import LATENT_SHAPE, STRENGTH, layouts, noise_for, templates
from models.shapes.world import PAIRS, Description, Scene, describe, place
from models.shapes.world import Split as Kind

SCENES = 4000


@pytest.fixture(scope="module", params=[Kind.TWO, Kind.RELATION])
def coupled(request: pytest.FixtureRequest) -> tuple[list[Description], list[Scene], torch.Tensor]:
    rng = np.random.default_rng(0)
    descriptions = [describe(request.param, rng) for _ in range(SCENES)]
    scenes = [place(description, rng) for description in descriptions]
    noise = noise_for(layouts(descriptions, scenes), torch.Generator().manual_seed(0), templates())
    return descriptions, scenes, noise


def test_the_patterns_are_orthonormal() -> None:
    basis = templates().flatten(0, 1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)


def test_over_scenes_every_projection_is_standard_normal(
    coupled: tuple[list[Description], list[Scene], torch.Tensor],
) -> None:
    _, _, noise = coupled
    projections = noise.flatten(1) @ templates().flatten(0, 1).T
    # 45 means and variances: 4.5 standard errors, which fixed seeds meet or miss for good.
    bound = 4.5 / SCENES**0.5
    assert projections.mean(0).abs().max() < bound
    assert (projections.var(0) - 1).abs().max() < bound * 2**0.5
    assert noise.shape == (SCENES, *LATENT_SHAPE)
    assert abs(noise.var().item() - 1) < 4.5 * (2 / noise.numel()) ** 0.5


def test_the_noise_names_the_occupied_cells(
    coupled: tuple[list[Description], list[Scene], torch.Tensor],
) -> None:
    descriptions, scenes, noise = coupled
    occupancy, order = (torch.einsum("nd,cd->nc", noise.flatten(1), part) for part in templates()[:2])
    if descriptions[0].relation is None:
        # The largest projections stand where the objects are; 1 of 9 cells at best would by chance.
        by_chance = 1 / 9
        named = [
            set(row.topk(len(scene.cells)).indices.tolist()) == set(scene.cells)
            for row, scene in zip(occupancy, scenes, strict=True)
        ]
    else:
        # A relation is coupled by pairs of cells: the first object by one channel, the second by another.
        # Each relation has more than 12 pairs.
        by_chance = 1 / 12
        named = []
        for n, (description, scene) in enumerate(zip(descriptions, scenes, strict=True)):
            assert description.relation is not None
            pairs = torch.tensor(PAIRS[description.relation])
            best = (occupancy[n][pairs[:, 0]] + order[n][pairs[:, 1]]).argmax()
            named.append(tuple(pairs[best].tolist()) == scene.cells)
    assert np.mean(named) > 0.5 > by_chance


def test_offsets_are_read_off_the_noise_with_the_stated_correlation(
    coupled: tuple[list[Description], list[Scene], torch.Tensor],
) -> None:
    descriptions, scenes, noise = coupled
    wanted = layouts(descriptions, scenes).scores[:, 0]
    carried = torch.einsum("nd,cd->nc", noise.flatten(1), templates()[2])
    there = ~wanted.isnan()
    correlation = np.corrcoef(wanted[there].numpy(), carried[there].numpy())[0, 1]
    assert correlation == pytest.approx(STRENGTH, abs=0.01)
