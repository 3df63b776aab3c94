"""What the authors' program decided on small problems: how to read it, and those problems (decision 0030)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from tests.sampling.oracle import Mixture, row_by_row

FILE = Path(__file__).with_name("recordings.json")
SHAPE = (2, 3)
"""Of a latent: the authors' program has tokens of features."""
FLOW = Mixture(
    weights=(0.4, 0.35, 0.25),
    means=(
        (1.5, 0.0, -1.0, 0.5, 0.2, 1.0),
        (-1.0, 1.0, 0.5, -1.5, 0.8, 0.0),
        (0.0, -1.2, 1.0, 1.0, -1.0, -0.5),
    ),
    deviations=(0.4, 0.5, 0.3),
)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """The mixture's velocity for latents [b, 2, 3], row by row."""
    return row_by_row(FLOW.velocity)(x.flatten(1), t).view_as(x)


def picture(x0: Tensor) -> Tensor:
    """What both programs decode a prediction [b, 2, 3] to: numbers in [0, 1]."""
    return (x0 / 8 + 0.5).clamp(0, 1)


TARGET = torch.tensor([[0.62, 0.45, 0.4], [0.55, 0.5, 0.6]])


def near(images: Tensor) -> Tensor:
    """Smooth: minus the squared distance to a target."""
    return -((images - TARGET) ** 2).flatten(1).sum(1) * 64


def waves(images: Tensor) -> Tensor:
    """Rugged: what one step gains the next may lose."""
    return torch.sin(90 * images).flatten(1).mean(1)


def count(images: Tensor) -> Tensor:
    """Whole numbers, as a count of objects gives: most candidates are level with another."""
    return -((torch.floor(images * 12) - torch.floor(TARGET * 12)) ** 2).flatten(1).sum(1)


def flat(images: Tensor) -> Tensor:
    """The same for all."""
    return torch.zeros(len(images))


def far(images: Tensor) -> Tensor:
    """Like near, far below zero: exp of it is zero in float64."""
    return 500 * near(images) - 2000


REWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function for function in (near, waves, count, flat, far)
}


# A level: its quota, the rewards of its draws, why it ended ("improved", "quota", "budget") and the draw that
# the chain went on from. The last level ends with the budget: it has no quota, and nothing goes on from it.
Drawn = tuple[int | None, list[float], str, int | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of the authors' program.

    Args:
        nfe: the budget.
        chains: their batch_size.
        initial_noises: their init_n_particles.
        reward: a name of REWARDS.
        seed: of the noises, which lie where sampling.noise puts them.
        sampler: fields of Sampler.
        pool: the rewards of each chain's initial noises.
        starts: which of them each chain started from.
        levels: for each chain those it drew at, in order, as Drawn.
        spent: NFE at the end.
        pick: chain, level and draw of the result.
        x0: the result, flat.
    """

    nfe: int
    chains: int
    initial_noises: int
    reward: str
    seed: int
    sampler: dict[str, Any]
    pool: list[list[float]]
    starts: list[int]
    levels: list[list[Drawn]]
    spent: int
    pick: tuple[int, int, int]
    x0: list[float]

    @property
    def name(self) -> str:
        """For people."""
        settings = [self.chains, self.initial_noises, self.reward, *self.sampler.values()]
        return f"{self.nfe} NFE, {', '.join(map(str, settings))}"

    def problem(self) -> Problem:
        """The same problem for our search."""
        return Problem(
            velocity=velocity,
            score=lambda x0: _scores(self.reward, x0),
            shape=SHAPE,
            seed=self.seed,
            nfe=self.nfe,
            sampler=Sampler(**self.sampler),
        )


def _scores(reward: str, x0: Tensor) -> Scores:
    rewards = REWARDS[reward](picture(x0)).tolist()
    return Scores(rewards=rewards, parts=[{} for _ in rewards], images=None)


def load() -> list[Case]:
    """All of them."""
    return [_case(**raw) for raw in json.loads(FILE.read_text(encoding="utf-8"))]


def _case(**raw: Any) -> Case:  # noqa: ANN401 -- JSON
    levels = [[(quota, rewards, end, draw) for quota, rewards, end, draw in chain] for chain in raw["levels"]]
    return Case(**(raw | {"levels": levels, "pick": tuple(raw["pick"])}))
