"""What every search remembers, and the one place that spends: charge, predict, score, keep the best."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from sampling.errors import RewardError
from sampling.events import Candidate, Decision, Level
from sampling.guidance import judge
from sampling.ledger import Ledger
from sampling.prediction import Prediction, predict, unstack
from sampling.problem import Problem, Scores


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What all strategies share; each adds its own fields.

    Args:
        ledger: what was spent.
        best: the result if the search stopped now, best first, at most the problem's ``keep``.
        best_reward: the best reward met in the run; None before the first score.
        first_reward: the reward of the first candidate, before any search.
        levels: those done with, in order.
    """

    ledger: Ledger
    best: tuple[Candidate, ...] = ()
    best_reward: float | None = None
    first_reward: float | None = None
    levels: tuple[Level, ...] = ()

    @property
    def pictured(self) -> tuple[Candidate, ...]:
        """Candidates that may be in the result of a search that goes on: whose pictures are to be kept."""
        return self.best


S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Address:
    """Where in the search a latent belongs; see Candidate for the fields."""

    chain: int
    level: int
    draw: int
    t: float
    t_next: float
    parent: int | None = None
    quota: int = 0
    carried: int = 0


def evaluate(
    problem: Problem, state: S, x: Tensor, addresses: Sequence[Address]
) -> tuple[S, list[Candidate]]:
    """Charge for, predict and score a batch of latents: the only way to a Candidate.

    One model call and one reward call, or as many as ``max_batch`` asks for. The strategy decides what
    becomes of each candidate (they come back ``rejected``) and then enters them with ``record``.

    Args:
        problem: the search.
        state: before; its ledger is charged before the model is called.
        x: [b, *latent], row i at the time addresses[i].t_next.
        addresses: b of them.

    Returns:
        The state with its ledger brought up to date, and the b candidates in order.

    Raises:
        BudgetExceededError: before anything is computed.
        RewardError: for a reward that is not a finite number.
    """
    ledger = state.ledger.charge(len(addresses), problem.forwards_per_nfe)
    best_reward = -math.inf if state.best_reward is None else state.best_reward
    candidates: list[Candidate] = []
    for part in chunks(len(addresses), problem.max_batch):
        times = [address.t_next for address in addresses[part]]
        prediction = predict(problem.velocity, problem.sampler.path, x[part], times)
        scores, onward = judge(problem, prediction, times)
        ledger = _scored(problem, ledger, scores, len(times))
        rows = zip(addresses[part], x[part].unbind(), unstack(onward), strict=True)
        for i, (address, latent, row) in enumerate(rows):
            best_reward = max(best_reward, scores.rewards[i])
            nfe = state.ledger.nfe_spent + len(candidates) + 1
            candidates.append(_candidate(nfe, address, latent, row, scores, i, best_reward))
    return replace(state, ledger=ledger), candidates


def record(problem: Problem, state: S, candidates: Sequence[Candidate]) -> S:
    """Enter decided candidates: the best of the run, its reward, and the first reward of all."""
    if not candidates:
        return state
    return replace(
        state,
        best=keep_best((*state.best, *candidates), problem.keep),
        best_reward=candidates[-1].best_reward,
        first_reward=candidates[0].reward if state.first_reward is None else state.first_reward,
    )


def decide(
    candidates: Sequence[Candidate], kept: Collection[int], best_before: float | None
) -> tuple[Candidate, ...]:
    """Say what became of scored candidates.

    Args:
        candidates: as they come from ``evaluate``.
        kept: ``nfe`` of those that the search goes on from.
        best_before: the best reward of the run before them.
    """
    best = -math.inf if best_before is None else best_before

    def decision(candidate: Candidate) -> Decision:
        if candidate.parent is None:
            return Decision.INITIAL
        if candidate.nfe not in kept:
            return Decision.REJECTED
        return Decision.IMPROVED if candidate.reward > best else Decision.KEPT

    return tuple(replace(candidate, decision=decision(candidate)) for candidate in candidates)


def predict_unscored(problem: Problem, state: S, x: Tensor, r: Sequence[float]) -> tuple[S, Prediction]:
    """Charge for and make predictions that only serve the next step. Arguments as in ``evaluate``.

    Where the reward guides, they are scored nevertheless, for its gradient.
    """
    ledger = state.ledger.charge(len(r), problem.forwards_per_nfe)
    parts: list[Prediction] = []
    for part in chunks(len(r), problem.max_batch):
        prediction = predict(problem.velocity, problem.sampler.path, x[part], r[part])
        if problem.guided:
            scores, prediction = judge(problem, prediction, r[part])
            ledger = _scored(problem, ledger, scores, len(r[part]))
        parts.append(prediction)
    joined = Prediction(torch.cat([p.x0 for p in parts]), torch.cat([p.eps for p in parts]))
    return replace(state, ledger=ledger), parts[0] if len(parts) == 1 else joined


def left_with(chain: int, candidate: Candidate, best_reward: float, draws: int) -> Level:
    """The level of ``candidate``, left with it after all its ``draws``."""
    return Level(
        chain=chain,
        level=candidate.level,
        t=candidate.t_next,
        reward=candidate.reward,
        best_reward=best_reward,
        draws=draws,
        quota=draws,
        carried=0,
        candidate=candidate.nfe,
    )


def keep_best(candidates: Iterable[Candidate], keep: int) -> tuple[Candidate, ...]:
    """The ``keep`` best, best first; among equals the earlier one."""
    return tuple(sorted(candidates, key=lambda c: (-c.reward, c.nfe))[:keep])


def chunks(count: int, max_batch: int | None) -> list[slice]:
    """Slices of at most ``max_batch`` rows that cover ``count`` rows."""
    size = count if max_batch is None else max_batch
    return [slice(start, start + size) for start in range(0, count, max(size, 1))]


def draw_noise(problem: Problem, addresses: Iterable[tuple[int, int, int]]) -> Tensor:
    """Noise [b, *latent] on the problem's device for b addresses (chain, level, draw)."""
    noise = problem.noise
    return torch.stack([noise.draw(*address) for address in addresses]).to(problem.device)


def _candidate(
    nfe: int,
    address: Address,
    x: Tensor,
    prediction: Prediction,
    scores: Scores,
    row: int,
    best_reward: float,
) -> Candidate:
    return Candidate(
        nfe=nfe,
        chain=address.chain,
        level=address.level,
        draw=address.draw,
        t=address.t,
        t_next=address.t_next,
        parent=address.parent,
        reward=scores.rewards[row],
        rewards=scores.parts[row],
        best_reward=best_reward,
        decision=Decision.REJECTED,
        quota=address.quota,
        carried=address.carried,
        x=x,
        prediction=prediction,
        image=None if scores.images is None else scores.images[row],
    )


def _scored(problem: Problem, ledger: Ledger, scores: Scores, count: int) -> Ledger:
    _check(scores, count)
    decodes = 0 if scores.images is None else count
    return ledger.scored(count, decodes, count if problem.guided else 0)


def _check(scores: Scores, count: int) -> None:
    sizes = [len(scores.rewards), len(scores.parts)]
    if scores.images is not None:
        sizes.append(len(scores.images))
    if sizes != [count] * len(sizes):
        raise RewardError(f"{count} predictions were to be scored, and the answer holds {sizes}")
    for reward, parts in zip(scores.rewards, scores.parts, strict=True):
        for name, value in {"the reward": reward, **parts}.items():
            if not math.isfinite(value):
                raise RewardError(f"{name} is {value}; a reward must be a finite number")
