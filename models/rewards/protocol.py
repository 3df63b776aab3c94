"""What a reward is, and the check that every score passes before anything is decided by it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class RewardValueError(Exception):
    """A reward returned something that cannot be ranked: NaN, infinite, or not one score for each picture."""


@dataclass(frozen=True)
class Facts:
    """What is known of a reward without calling it.

    Attributes:
        minimum: least score; None: no bound that says anything.
        maximum: greatest score; None: no bound that says anything.
        differentiable: whether gradients flow from the scores to the pictures.
        source: where the formula comes from.
        weights: the file of weights it loads; None: it loads none.
    """

    minimum: float | None
    maximum: float | None
    differentiable: bool
    source: str
    weights: Path | None = None


class Reward(Protocol):
    """A score of pictures. Made by calling its class with the device it runs on."""

    facts: ClassVar[Facts]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """Score pictures; higher is better, and a picture's score does not depend on the rest of the batch.

        Args:
            images: [b, 3, h, w], float in [0, 1].
            prompt: the text they were made for.

        Returns:
            [b], float32, on the reward's device.
        """
        ...


def checked_score(name: str, reward: Reward, images: Tensor, prompt: str) -> Tensor:
    """Score pictures and check the answer.

    Raises:
        RewardValueError: it names the reward and the first row at fault.
    """
    scores = reward.score(images, prompt)
    if scores.shape != (len(images),):
        raise RewardValueError(
            f"reward '{name}' returned shape {tuple(scores.shape)} for {len(images)} pictures"
        )
    bad = ~torch.isfinite(scores)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise RewardValueError(
            f"reward '{name}' returned {scores[row].item()} for picture {row} of {len(images)}"
        )
    return scores
