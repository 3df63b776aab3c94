"""What a search tells: candidates, levels, and the round that they happened in."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from torch import Tensor

from sampling.prediction import Prediction


class Decision(StrEnum):
    """What became of a candidate."""

    INITIAL = "initial"
    """Drawn at the start, or the end of a run that nothing steered."""
    IMPROVED = "improved"
    """It beat the best reward so far, and the search went on from it."""
    LEVEL_BEST = "level_best"
    """It was the last draw of its level's quota: the chain moved to the best of that level."""
    KEPT = "kept"
    """It did not beat the best so far, and the search went on from it: one of the survivors of its level."""
    REJECTED = "rejected"
    """Scored, and not gone on from."""
    UNUSED = "unused"
    """Evaluated ahead of time and overtaken by an earlier draw that improved."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One prediction that was scored.

    Args:
        nfe: the NFE spent when it was paid for, from 1; it names the candidate within its search.
        chain: from 0.
        level: the index of t_next on the grid, or of the generation where there is no grid; the sampler's
            ``steps`` for the candidates of a finish.
        draw: its number among the draws of this chain at this level, from 0.
        t: the time of the latent that it was drawn from, or at which its solve began; 1 for an initial noise.
        t_next: the time of its own latent.
        parent: ``nfe`` of the candidate that it was drawn from; None for an initial noise or a plain run.
        reward: of the data that the model predicts; finite.
        rewards: the parts of that reward, by name.
        best_reward: the best of the whole run, this one included; it never falls.
        decision: what became of it.
        quota: draws that its chain had at this level; 0 outside RBF's levels.
        carried: of those, rolled over from the levels before.
        x: [*latent] at t_next.
        prediction: of x, that steps from it are made with: the model's, moved where the reward guides.
        image: [3, h, w] in [0, 1], the decoded data that the model predicts; None if there is none or after
            a restore.
    """

    nfe: int
    chain: int
    level: int
    draw: int
    t: float
    t_next: float
    parent: int | None
    reward: float
    rewards: dict[str, float]
    best_reward: float
    decision: Decision
    quota: int
    carried: int
    x: Tensor
    prediction: Prediction
    image: Tensor | None = field(default=None, metadata={"checkpoint": False})


@dataclass(frozen=True, slots=True)
class Level:
    """A chain, or a population as chain 0, has done with a level.

    Args:
        chain: from 0.
        level: the index of the level on the grid, 0 for the initial noises.
        t: its time.
        reward: of the candidate that the chain goes on from; of the best one, for a population.
        best_reward: r*, the best reward that this chain of rbf, or the whole of another search, has met.
        draws: used at this level; those left of the quota roll over if the candidate improved.
        quota: draws that the chain had.
        carried: of those, rolled over from the levels before.
        candidate: ``nfe`` of the candidate that ``reward`` is of.
    """

    chain: int
    level: int
    t: float
    reward: float
    best_reward: float
    draws: int
    quota: int
    carried: int
    candidate: int


StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True, eq=False)
class Round(Generic[StateT]):
    """One batched step of a search.

    Args:
        state: after the round; all that is needed to go on.
        candidates: scored in this round, in the order of their ``nfe``.
        levels: that a chain has done with in this round.
    """

    state: StateT
    candidates: tuple[Candidate, ...] = ()
    levels: tuple[Level, ...] = ()
