"""What a search is given: a model, a reward, a budget."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sampling.grids import linear
from sampling.noise import AddressedNoise
from sampling.prediction import Velocity
from sampling.sampler import Sampler
from sampling.schedules import Pace, Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The verdict on b predictions.

    Args:
        rewards: b finite numbers, higher is better; what steers the search.
        parts: b dicts, the rewards that make up each number, by name; shown and never used to steer.
        images: [b, 3, h, w] in [0, 1], or None where the reward needed no image.
    """

    rewards: list[float]
    parts: list[dict[str, float]]
    images: Tensor | None


# x0 [b, *latent] -> Scores
Score = Callable[[Tensor], Scores]
# x0 [b, *latent] -> the same Scores, and [b, *latent] the gradient of each row's reward by its own x0
Slope = Callable[[Tensor], tuple[Scores, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One search to be made.

    Args:
        velocity: the model, see sampling.prediction.Velocity.
        score: decodes and judges predictions.
        shape: of one latent, without the batch axis.
        seed: in [0, 2^64); with the strategy and the budget it fixes every decision.
        nfe: the budget, at least 1.
        sampler: how latents move.
        forwards_per_nfe: rows that the model computes for one prediction (2 under classifier-free guidance).
        keep: how many of the best candidates the state keeps, at least 1.
        device: where latents live.
        slope: score with its gradient; needed where the sampler guides by it.
        max_batch: the most rows in one model or reward call; None: no limit. It changes no decision rule;
            a model whose rows differ in their last bits with the batch (most do) may decide a tie otherwise.
        schedule: times of the model's own pipeline on the linear path, see sampling.schedules; even where
            that does not shift them.
    """

    velocity: Velocity
    score: Score
    shape: tuple[int, ...]
    seed: int
    nfe: int
    sampler: Sampler = field(default_factory=Sampler)
    forwards_per_nfe: int = 1
    keep: int = 1
    device: torch.device | str = "cpu"
    slope: Slope | None = None
    max_batch: int | None = None
    schedule: Schedule = linear

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"a seed lies in [0, 2^64), and this one is {self.seed}")
        for name in ("nfe", "forwards_per_nfe", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, and was {getattr(self, name)}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ValueError(f"max_batch is at least 1, and was {self.max_batch}")
        if self.guided and self.slope is None:
            raise ValueError("reward_guidance needs the slope of the reward")

    @property
    def guided(self) -> bool:
        """Whether latents move by the reward's gradient too."""
        return self.sampler.reward_guidance > 0

    @property
    def pace(self) -> Pace:
        """That of the model's own pipeline in as many steps as the sampler's."""
        return Pace(self.schedule(self.sampler.steps))

    @property
    def noise(self) -> AddressedNoise:
        """The noise of this search, by address."""
        return AddressedNoise(self.seed, self.shape)
