import pytest
import torch
from torch.nn.functional import avg_pool2d

from models.rewards.sharpness import Sharpness


def test_flat_and_slanted_pictures_have_none() -> None:
    slope = torch.linspace(0, 1, 12).view(1, 1, 1, 12) + torch.linspace(0, 0.5, 9).view(1, 1, 9, 1)
    assert Sharpness().score(torch.full((1, 3, 9, 12), 0.7), "").item() == pytest.approx(0, abs=1e-6)
    assert Sharpness().score(slope.expand(1, 3, 9, 12) / 1.5, "").item() == pytest.approx(0, abs=1e-6)


def test_a_checkerboard_has_the_most() -> None:
    board = (torch.arange(8).view(8, 1) + torch.arange(10)) % 2
    assert Sharpness().score(board.float().expand(1, 3, 8, 10), "").item() == pytest.approx(4, rel=1e-5)


def test_a_single_edge_by_hand() -> None:
    # Columns 0, 0, 1, 1: second differences 1 and -1 at the two inner columns, in every inner row.
    edge = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 5, 4)
    assert Sharpness().score(edge, "").item() == pytest.approx(1, rel=1e-5)


def test_the_two_directions_do_not_cancel() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="ij")
    saddle = (1 + x * x - y * y) / 2
    assert Sharpness().score(saddle.expand(1, 3, 9, 9), "").item() == pytest.approx(2 / 16, rel=1e-3)


def test_blurring_lowers_it() -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    once = avg_pool2d(images, 3, stride=1)
    twice = avg_pool2d(once, 3, stride=1)
    first, second, third = (Sharpness().score(x, "").item() for x in (images, once, twice))
    assert first > 2 * second > 4 * third
