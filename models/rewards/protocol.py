"""What a reward is, and the check that every score passes before anything is decided by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

RAISED = "raised by reward "
"""How the note begins that an exception of a reward is given."""
REMEDY = "it must give one finite number for each picture: mend it, or ask for another reward"


class RewardValueError(Exception):
    """A reward returned something that cannot be ranked: NaN, infinite, or not one score for each picture."""


class RewardLoadError(Exception):
    """A reward lacks what it needs, or its weights are incomplete, of another kind, or unsafe to load.

    The message, one line, says what is wanted and how to get it.
    """


@dataclass(frozen=True)
class Facts:
    """What is known of a reward without calling it.

    Attributes:
        minimum: least score; None: no bound that says anything.
        maximum: greatest score; None: no bound that says anything.
        differentiable: whether gradients flow from the scores to the pictures.
        source: where the formula comes from.
        weights: the file of weights that comes with it; None: none does.
        fetch: what to download into the folder that it is given, in this order: `repository [file ...]` of
            the Hugging Face hub, with `--local-dir FOLDER/part` where several have files of the same names.
            Empty: it needs no folder.
        then: what to type in Rollover's environment when that is done; None: nothing.
    """

    minimum: float | None
    maximum: float | None
    differentiable: bool
    source: str
    weights: Path | None = None
    fetch: tuple[str, ...] = ()
    then: str | None = None


class Reward(Protocol):
    """A score of pictures.

    Made by calling its class with the device it runs on, and with what it needs beside it: `folder`, where
    `facts.fetch` says that there must be one.
    """

    facts: ClassVar[Facts]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """Score pictures; higher is better, and a picture's score does not depend on the rest of the batch.

        Args:
            images: [b, 3, h, w], float in [0, 1].
            prompt: the text they were made for.

        A reward that has parameters takes them beside, by name, each with a default.

        Returns:
            [b], float32, on the reward's device.
        """
        ...


def checked_score(
    name: str, reward: Reward, images: Tensor, prompt: str, params: Mapping[str, Any] | None = None
) -> Tensor:
    """Score pictures, by the reward's parameters if it has any, and check the answer.

    Raises:
        RewardValueError: it names the reward and the first row at fault. Whatever the reward raises goes on,
            with a note that names it.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise RewardValueError(
            f"reward '{name}' judges pictures of red, green and blue, and got shape {tuple(images.shape)}: "
            "the model's backend must decode to three channels"
        )
    score: Any = reward.score
    try:
        scores = score(images, prompt, **(params or {}))
    except Exception as error:
        error.add_note(f"{RAISED}'{name}'")
        raise
    if not isinstance(scores, Tensor):
        raise RewardValueError(f"reward '{name}' returned a {type(scores).__name__}, not a tensor; {REMEDY}")
    if scores.shape != (len(images),):
        raise RewardValueError(
            f"reward '{name}' returned shape {tuple(scores.shape)} for {len(images)} pictures; {REMEDY}"
        )
    bad = ~torch.isfinite(scores)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise RewardValueError(
            f"reward '{name}' returned {scores[row].item()} for picture {row} of {len(images)}; {REMEDY}"
        )
    return scores
