import pytest
import torch

from models.rewards.brightness import Brightness


@pytest.mark.parametrize(
    ("colour", "luma"),
    [
        ((0, 0, 0), 0.0),
        ((1, 1, 1), 1.0),
        ((1, 0, 0), 0.299),
        ((0, 1, 0), 0.587),
        ((0, 0, 1), 0.114),
        ((0.5, 0.5, 0.5), 0.5),
    ],
)
def test_flat_colours_have_the_luma_of_bt601(colour: tuple[float, float, float], luma: float) -> None:
    images = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    assert Brightness().score(images, "").item() == pytest.approx(luma, abs=1e-6)


def test_half_black_half_white_is_in_the_middle() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[:, :, :2] = 1
    assert Brightness().score(images, "").item() == pytest.approx(0.5)
