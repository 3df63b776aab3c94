"""What holds for every weight-free reward."""

import pytest
import torch
from torch import Tensor

from contracts import rewards
from models.registry import REWARDS, load_reward
from models.rewards.protocol import Facts, Reward

NAMES = ["compressibility", "incompressibility", "brightness", "colorfulness", "sharpness"]
DIFFERENTIABLE = [name for name in NAMES if load_reward(name).facts.differentiable]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def reward(name: str) -> Reward:
    return load_reward(name)


def pictures(batch: int, height: int = 24, width: int = 32) -> Tensor:
    """From nearly flat to noisy, each row in colours of its own."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(batch, 3, height, width, generator=generator)
    colour = torch.rand(batch, 3, 1, 1, generator=generator)
    share = torch.linspace(0.05, 0.9, batch).view(-1, 1, 1, 1)
    return colour + share * (noise - colour)


def test_every_picture_has_one_score_whatever_its_company(reward: Reward) -> None:
    images = pictures(6)
    scores = reward.score(images, "a prompt")
    alone = torch.cat([reward.score(image[None], "another prompt") for image in images])
    assert scores.shape == (6,)
    assert scores.dtype == torch.float32
    assert len(set(scores.tolist())) == 6
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reward.score(images.flip(0), ""), scores.flip(0), rtol=1e-5, atol=1e-6)


def test_pictures_are_not_changed(reward: Reward) -> None:
    images = pictures(2)
    before = images.clone()
    reward.score(images, "")
    assert torch.equal(images, before)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_grey_pictures_have_finite_scores_in_range(reward: Reward, value: float) -> None:
    assert_in_range(reward.score(torch.full((2, 3, 16, 16), value), ""), reward.facts)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 40), (65, 33)])
def test_scores_lie_in_the_stated_range(reward: Reward, height: int, width: int) -> None:
    corners = torch.eye(2).repeat(height, width)[:height, :width].expand(1, 3, -1, -1)
    images = torch.cat([pictures(4, height, width), pictures(2, height, width).round(), corners])
    assert_in_range(reward.score(images, ""), reward.facts)


def assert_in_range(scores: Tensor, facts: Facts) -> None:
    assert torch.isfinite(scores).all()
    # Means in float32 may end an ulp or two outside.
    assert facts.minimum is None or scores.min() >= facts.minimum - 1e-6
    assert facts.maximum is None or scores.max() <= facts.maximum + 1e-6


def test_half_precision_and_strided_pictures_score_alike(reward: Reward) -> None:
    images = pictures(3)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(reward.score(strided, ""), reward.score(images, ""), rtol=1e-5, atol=1e-6)
    scores = reward.score(images.bfloat16(), "")
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reward.score(images.bfloat16().float(), ""))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_the_slopes_of_the_score(reward: Reward) -> None:
    images = pictures(6)[3:]
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    leaf = images.clone().requires_grad_()
    [gradient] = torch.autograd.grad(reward.score(leaf, "").sum(), leaf)
    step = 3e-4
    rise = reward.score(images + step * direction, "") - reward.score(images - step * direction, "")
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), rise / (2 * step), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_finite_on_flat_grey(reward: Reward) -> None:
    images = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    [gradient] = torch.autograd.grad(reward.score(images, "").sum(), images)
    assert torch.isfinite(gradient).all()


def test_what_is_not_differentiable_gives_no_gradient(name: str, reward: Reward) -> None:
    scores = reward.score(pictures(1).requires_grad_(), "")
    assert scores.requires_grad == (name in DIFFERENTIABLE)


def test_the_catalogue_states_the_same_facts(name: str, reward: Reward) -> None:
    listed = rewards.REWARDS[name]
    assert (listed.minimum, listed.maximum) == (reward.facts.minimum, reward.facts.maximum)
    assert listed.weights is reward.facts.weights is None
    assert reward.facts.differentiable == listed.differentiable


def test_the_catalogue_lists_the_rewards_of_the_registry() -> None:
    assert rewards.BUNDLED.keys() == REWARDS.keys()
