import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from models.registry import load_reward
from models.rewards.composite import Composite, Part
from models.rewards.protocol import Facts, RewardValueError

FACTS = Facts(minimum=None, maximum=None, differentiable=False, source="these tests")


@dataclass(frozen=True)
class Given:
    """A reward that returns what it was made with."""

    scores: Tensor
    facts: ClassVar[Facts] = FACTS

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002
        return self.scores


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
A = Given(torch.tensor([1.0, 2.0, 3.0]))
B = Given(torch.tensor([10.0, 0.0, 20.0]))


def test_it_is_the_weighted_sum_of_normalised_scores() -> None:
    parts = {"a": Part(A, weight=2.0, mean=1.0, scale=0.5), "b": Part(B, weight=-1.0, mean=10.0, scale=10.0)}
    total = Composite(parts).evaluate(IMAGES, "")
    assert total.scores.tolist() == pytest.approx([0.0, 5.0, 7.0])
    assert {name: scores.tolist() for name, scores in total.parts.items()} == {
        "a": [1.0, 2.0, 3.0],
        "b": [10.0, 0.0, 20.0],
    }


def test_one_reward_alone_is_itself() -> None:
    reward = load_reward("brightness")
    total = Composite({"brightness": Part(reward)}).evaluate(IMAGES, "")
    assert torch.equal(total.scores, reward.score(IMAGES, ""))


def test_a_picture_scores_the_same_in_any_company() -> None:
    parts = {name: Part(load_reward(name), mean=0.3, scale=0.2) for name in ("brightness", "sharpness")}
    together = Composite(parts).evaluate(IMAGES, "").scores
    alone = torch.cat([Composite(parts).evaluate(image[None], "").scores for image in IMAGES])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_cannot_be_ranked_names_its_reward(value: float) -> None:
    bad = Given(torch.tensor([1.0, value, 1.0]))
    with pytest.raises(RewardValueError, match=rf"reward 'broken' returned {value} for picture 1 of 3"):
        Composite({"a": Part(A), "broken": Part(bad)}).evaluate(IMAGES, "")


@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_a_wrong_number_of_scores_names_its_reward(shape: tuple[int, ...]) -> None:
    with pytest.raises(RewardValueError, match=r"reward 'broken' returned shape .* for 3 pictures"):
        Composite({"broken": Part(Given(torch.zeros(shape)))}).evaluate(IMAGES, "")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha_channels_are_refused(channels: int) -> None:
    images = torch.zeros(3, channels, 8, 8)
    with pytest.raises(
        RewardValueError, match=rf"'a' judges .* got shape \(3, {channels}, 8, 8\): the model's"
    ):
        Composite({"a": Part(A)}).evaluate(images, "")


def test_what_is_no_tensor_names_its_reward() -> None:
    scores: Any = [1.0, 2.0, 3.0]
    with pytest.raises(
        RewardValueError, match="reward 'broken' returned a list, not a tensor; it must give one"
    ):
        Composite({"broken": Part(Given(scores))}).evaluate(IMAGES, "")


def test_what_a_reward_raises_goes_on_with_its_name() -> None:
    class Raising(Given):
        def score(self, images: Tensor, prompt: str) -> Tensor:
            raise ZeroDivisionError(prompt, images.shape)

    with pytest.raises(ZeroDivisionError) as caught:
        Composite({"broken": Part(Raising(IMAGES))}).evaluate(IMAGES, "")
    assert caught.value.__notes__ == ["raised by reward 'broken'"]


def test_who_is_asked_is_told_in_order() -> None:
    told: list[str] = []
    Composite({"b": Part(B), "a": Part(A)}).evaluate(IMAGES, "", told.append)
    assert told == ["b", "a"]


def test_a_reward_is_given_its_params() -> None:
    class Shifted(Given):
        def score(self, images: Tensor, prompt: str, by: float = 0.0) -> Tensor:  # noqa: ARG002
            return self.scores + by

    parts = {"a": Part(Shifted(A.scores), params={"by": 2.0}), "b": Part(Shifted(A.scores))}
    assert Composite(parts).evaluate(IMAGES, "").parts["a"].tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale of reward 'a'"):
        Composite({"a": Part(A, scale=scale)})


def test_a_sum_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        Composite({})
    with pytest.raises(ValueError, match="at least one part"):
        Composite({"a": Part(A, weight=0.0)})
