"""Blocks of levels, many continuations over each, and one kept: what svdd and code are made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from sampling.events import Candidate, Round
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import Address, decide, draw_noise, evaluate, left_with, predict_unscored, record
from sampling.strategies import finish, moves
from sampling.strategies.finish import FinishState
from sampling.strategy import check_budget, check_least


@dataclass(frozen=True, kw_only=True, eq=False)
class BlocksState(FinishState):
    """Progress of a search.

    Args:
        level: to be predicted next; the sampler's ``steps`` when all are done with.
        x: [b, *latent] at that level, the continuations under way, chain by chain; None between blocks.
        current: where each chain stands, chosen at the end of the block before; empty in the first.
    """

    level: int = 0
    x: Tensor | None = None
    current: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Blocks(ABC):
    """Chains that walk the grid in blocks: K continuations of each, the one-step reward at the end chooses.

    In the first block each continuation has an initial noise of its own. K is what the budget pays for, the
    same in all blocks and chains; the remainder buys one more for the first of them, block by block, as far
    as it goes.

    Args:
        chains: walked side by side, independent of each other, at least 1.
        finish_steps: evaluations of the finish, at least 0, reserved when the budget is laid out.
    """

    name: ClassVar[str]

    chains: int = 2
    finish_steps: int = 4

    def __post_init__(self) -> None:
        check_least(self, {"chains": 1, "finish_steps": 0})

    @property
    @abstractmethod
    def length(self) -> int:
        """Levels of a block; the last block has what is left."""

    @abstractmethod
    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> Candidate:
        """Which of the continuations of one chain it goes on from."""

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One continuation of each chain in each block, and the finish."""
        return self.chains * sampler.steps + self.finish_steps

    def counts(self, problem: Problem) -> list[list[int]]:
        """Continuations of each chain (inner) in each block (outer)."""
        steps = problem.sampler.steps
        each, left = divmod(problem.nfe - self.finish_steps, self.chains * steps)
        counts: list[list[int]] = []
        for start in range(0, steps, self.length):
            cost = min(self.length, steps - start)
            more = min(left // cost, self.chains)
            left -= more * cost
            counts.append([each + (chain < more) for chain in range(self.chains)])
        return counts

    def init(self, problem: Problem) -> Round[BlocksState]:
        """The initial noises, scored if a block is one level."""
        check_budget(self, problem)
        return self.step(problem, BlocksState(ledger=Ledger(problem.nfe)))

    def step(self, problem: Problem, state: BlocksState) -> Round[BlocksState]:
        """One level of all continuations, or a step of the finish."""
        level, steps = state.level, problem.sampler.steps
        if level == steps:
            return finish.advance(problem, state, self.finish_steps)
        counts = self.counts(problem)[level // self.length]
        draws = [(chain, draw) for chain, count in enumerate(counts) for draw in range(count)]
        x = _begin(problem, state, draws) if state.x is None else state.x
        if (level + 1) % self.length and level + 1 < steps:
            return Round(_walk(problem, state, x, draws))
        return self._end(problem, state, x, draws)

    def finished(self, problem: Problem, state: BlocksState) -> bool:
        """When all levels and the finish are done with."""
        return state.level == problem.sampler.steps and finish.over(state, self.finish_steps)

    def unspent(self, problem: Problem, state: BlocksState) -> str | None:
        """What is left, less than a block costs, pays for no continuation."""
        del problem
        if state.ledger.nfe_left == 0:
            return None
        return f"{self.name} had too little left for one more continuation of {self.length} NFE"

    def _end(
        self, problem: Problem, state: BlocksState, x: Tensor, draws: Sequence[tuple[int, int]]
    ) -> Round[BlocksState]:
        """The last level of a block: score, and choose for each chain."""
        best_before = state.best_reward
        state, scored = evaluate(problem, state, x, _addresses(problem, state, draws))
        chains = [[c for c in scored if c.chain == chain] for chain in range(self.chains)]
        chosen = [self.choose(problem, own) for own in chains]
        candidates = decide(scored, {candidate.nfe for candidate in chosen}, best_before)
        best_reward = candidates[-1].best_reward
        levels = tuple(
            left_with(choice.chain, choice, best_reward, len(own))
            for choice, own in zip(chosen, chains, strict=True)
        )
        state = replace(
            record(problem, state, candidates),
            level=state.level + 1,
            x=None,
            current=tuple(chosen),
            levels=state.levels + levels,
        )
        return Round(state, candidates, levels)


def _begin(problem: Problem, state: BlocksState, draws: Sequence[tuple[int, int]]) -> Tensor:
    """The first latents of a block: initial noises, or children of where the chains stand."""
    if not state.current:
        return draw_noise(problem, [(chain, 0, draw) for chain, draw in draws])
    parents = [state.current[chain] for chain, _ in draws]
    return moves.children(problem, parents, _addresses(problem, state, draws))


def _walk(problem: Problem, state: BlocksState, x: Tensor, draws: Sequence[tuple[int, int]]) -> BlocksState:
    """Each continuation one level down, unscored."""
    level, count = state.level, len(draws)
    r, r_next = problem.sampler.times[level : level + 2]
    state, prediction = predict_unscored(problem, state, x, [r] * count)
    places = [(chain, level + 1, draw) for chain, draw in draws]
    x = moves.step(problem, x, prediction, [r] * count, [r_next] * count, places)
    return replace(state, x=x, level=level + 1)


def _addresses(problem: Problem, state: BlocksState, draws: Sequence[tuple[int, int]]) -> list[Address]:
    times, level = problem.sampler.times, state.level
    parents = [candidate.nfe for candidate in state.current]
    return [
        Address(
            chain=chain,
            level=level,
            draw=draw,
            t=times[max(level - 1, 0)],
            t_next=times[level],
            parent=parents[chain] if parents else None,
        )
        for chain, draw in draws
    ]
