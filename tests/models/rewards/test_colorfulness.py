import numpy as np
import pytest
import torch
from torch import Tensor

from models.rewards.colorfulness import Colorfulness


def by_the_paper(image: Tensor) -> float:
    """The formula as it is printed, in double precision, on 0 to 255."""
    red, green, blue = 255 * image.double().numpy()
    rg, yb = red - green, 0.5 * (red + green) - blue
    spread = np.sqrt(np.std(rg) ** 2 + np.std(yb) ** 2)
    return float(spread + 0.3 * np.sqrt(np.mean(rg) ** 2 + np.mean(yb) ** 2))


def test_it_is_the_papers_formula() -> None:
    images = torch.rand(4, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    scores = Colorfulness().score(images, "")
    assert scores.tolist() == pytest.approx([by_the_paper(image) for image in images], rel=1e-5)


def test_grey_has_no_colour() -> None:
    grey = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(2, 3, 8, 8)
    assert Colorfulness().score(grey, "").abs().max() < 1e-3


def test_one_colour_counts_by_its_mean_alone() -> None:
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 1
    assert Colorfulness().score(red, "").item() == pytest.approx(0.3 * 255 * 1.25**0.5, rel=1e-5)


def test_saturation_raises_it() -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    grey = images.mean(1, keepdim=True)
    scores = [Colorfulness().score(grey + k * (images - grey), "").item() for k in (0.25, 0.5, 1.0)]
    assert scores == sorted(scores)
    assert scores[0] < scores[2]
