"""Several rewards as one number: a weighted sum of scores normalised by stated constants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.rewards.protocol import Reward, checked_score


@dataclass(frozen=True)
class Part:
    """One reward of a sum, the constants that bring its scores to a common scale, and its parameters."""

    reward: Reward
    weight: float = 1.0
    mean: float = 0.0
    scale: float = 1.0
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Total:
    """Scores of b pictures: the sum that ranks them [b], and each reward's own scores [b], not normalised."""

    scores: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Composite:
    """Sum over the parts of weight x (score - mean) / scale.

    The constants are the caller's, never the batch's: a picture's score is the same in any company. One
    reward with weight 1, mean 0 and scale 1 is that reward. A negative weight makes less of it better.

    Raises:
        ValueError: no parts, a scale that is not positive, or only weights of zero.
    """

    parts: Mapping[str, Part]

    def __post_init__(self) -> None:
        if not any(part.weight for part in self.parts.values()):
            raise ValueError("a composite reward needs at least one part whose weight is not zero")
        for name, part in self.parts.items():
            if not part.scale > 0:
                raise ValueError(f"the scale of reward '{name}' is {part.scale}; it must be positive")

    def evaluate(
        self,
        images: Tensor,
        prompt: str,
        asking: Callable[[str], None] = lambda name: None,  # noqa: ARG005 -- most do not want to know
    ) -> Total:
        """Score pictures [b, 3, h, w] in [0, 1]; `asking` is called with each reward's name, just before.

        Raises:
            models.rewards.protocol.RewardValueError: a part returned NaN, an infinite score or a wrong shape.
        """
        scores: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            asking(name)
            scores[name] = checked_score(name, part.reward, images, prompt, part.params)
        # Parts may run on different devices; a handful of numbers meets on the CPU.
        terms = [p.weight * (scores[name].cpu() - p.mean) / p.scale for name, p in self.parts.items()]
        return Total(torch.stack(terms).sum(0), scores)
