"""What a model's one-step predictions foretell, level by level, and the search settings that follow from it.

A search that judges by the one-step prediction chooses blindly where that tells nothing of the end. Of a
model distilled to few steps it tells something from t = 1 on; of one that is not, only lower down. What is
measured is the correlation, over noises of one prompt, of the prediction's reward at a level with the reward
at t = 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sampling.interpolants import LINEAR
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import chunks, draw_noise

STEPS = 10
INFORMATIVE = 0.5
"""Correlation from which on a choice is worth its evaluations: the mean's, whatever its error."""
ALIKE = 1e-6
"""Standard deviation, over the largest reward of the prompt, up to which rewards count as rounded alike."""


@dataclass(frozen=True, slots=True)
class Level:
    """One time of the linear path: mean of the correlation over prompts, and its standard error.

    The same prompts at all levels: those that have something to foretell. Of one prompt there is no error.
    """

    t: float
    correlation: float
    error: float | None
    prompts: int

    @property
    def shown(self) -> str:
        """Mean and error with two decimals."""
        error = "(one prompt)" if self.error is None else f"± {self.error:.2f}"
        return f"{self.correlation:.2f} {error}"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What follows for searches of the model.

    Args:
        foretold: "from_noise": something from t = 1 on, and the defaults fit; "lower_down": from a lower
            level on, with the settings given here; "nothing": not at any level that chains could go on from,
            so that a search by predictions would choose blindly and there are no settings for it.
        sampler: fields of sampling.sampler.Sampler.
        rbf: fields of sampling.strategies.rbf.Rbf.
    """

    foretold: Literal["from_noise", "lower_down", "nothing"]
    sampler: dict[str, Any] = field(default_factory=dict[str, Any])
    rbf: dict[str, Any] = field(default_factory=dict[str, Any])


def foresight(problem: Problem, noises: int, steps: int = STEPS) -> dict[float, float]:
    """Correlation of the one-step prediction's reward with the final one, over the noises of one prompt.

    Each noise goes down the linear path by Euler's method, at the model's own times; no budget is charged.

    Args:
        problem: one prompt; its ``max_batch`` holds.
        noises: at least 3.
        steps: of the way down, at least 1.

    Returns:
        By time, from 1 down, a number in [-1, 1]: 0 where all predictions are rewarded alike, which leaves
        nothing to choose by; nan everywhere where all ends are, and there is nothing to foretell.
    """
    times = problem.schedule(steps)
    x = draw_noise(problem, ((chain, 0, 0) for chain in range(noises)))
    parts = [rewards_down(problem, x[part], times) for part in chunks(noises, problem.max_batch)]
    table = np.concatenate(parts, axis=1)
    early, final = table[:-1], table[-1]
    least = ALIKE * np.abs(table).max()
    if final.std() <= least:
        return dict.fromkeys(times[:-1], float("nan"))
    told = [0.0 if level.std() <= least else float(np.corrcoef(level, final)[0, 1]) for level in early]
    return dict(zip(times[:-1], told, strict=True))


def rewards_down(problem: Problem, x: Tensor, times: Sequence[float]) -> list[list[float]]:
    """Rewards of what latents [b, *latent] at t = 1 predict at each of the times but 0, and of the ends."""
    rewards: list[list[float]] = []
    for t, t_next in pairwise(times):
        velocity = problem.velocity(x, torch.full((len(x),), t))
        rewards.append(problem.score(x - t * velocity).rewards)
        x = x - (t - t_next) * velocity
    return [*rewards, problem.score(x).rewards]


def levels(found: Sequence[Mapping[float, float]]) -> list[Level]:
    """Mean over prompts of what ``foresight`` found for each at the same times, level by level.

    ValueError where no prompt has a correlation: its rewards were all alike.
    """
    table = np.array([list(each.values()) for each in found], dtype=np.float64)
    table = table[~np.isnan(table).any(1)]
    count = len(table)
    if not count:
        raise ValueError("the rewards of all noises are alike: there is nothing to foretell")
    errors = (
        [float(e) for e in table.std(0, ddof=1) / np.sqrt(count)] if count > 1 else [None] * len(table[0])
    )
    rows = zip(found[0], table.mean(0), errors, strict=True)
    return [Level(float(t), float(mean), error, count) for t, mean, error in rows]


def recommend(found: Sequence[Level], steps: int) -> Recommendation:
    """Settings for ``rbf`` from what is foretold at each level.

    Where predictions tell something from t = 1 on, the defaults. Else a grid whose
    levels lie lower, and chains that begin just above the first level from which on down all is foretold;
    where there is no such level, nothing.

    Args:
        found: from t = 1 down.
        steps: of the model's own grid, whose levels ``first_level`` counts, whatever was measured with.
    """
    start = informative_from(found)
    if start == found[0].t:
        return Recommendation("from_noise")
    sampler = Sampler(grid="linear", steps=steps)
    lies_below = (level for level in range(1, steps) if linear_time(sampler, level) <= (start or 0))
    first = next(lies_below, None)
    if first is None:
        return Recommendation("nothing")
    # One level above it: its children are the first to be judged by what they foretell.
    rbf = {"first_level": first - 1, "initial_noises": 8, "chains": 2}
    return Recommendation("lower_down", {"grid": "linear", "kernel": "ddim"}, rbf)


def informative_from(found: Sequence[Level]) -> float | None:
    """The highest time from which on down every level foretells enough; None where the lowest does not."""
    start: float | None = None
    for level in reversed(found):
        if level.correlation < INFORMATIVE:
            break
        start = level.t
    return start


def linear_time(sampler: Sampler, level: int) -> float:
    """The time of the linear path with the noise of a level of the sampler's grid."""
    return LINEAR.time_at_ratio(sampler.path.at(sampler.times[level]).ratio)
