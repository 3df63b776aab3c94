"""Generations of short solves: what zero_order, sop and evolution are made of."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from sampling.events import Candidate, Round
from sampling.interpolants import Interpolant
from sampling.prediction import stack
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.schedules import Pace, paced
from sampling.state import Address, decide, evaluate, left_with, predict_unscored, record
from sampling.strategies import finish, moves
from sampling.strategies.finish import FinishState
from sampling.strategies.own_way import OwnWay, times_of
from sampling.strategy import check_budget


@dataclass(frozen=True, slots=True, eq=False)
class Solve:
    """A batch of latents on their way down.

    Args:
        x: [b, *latent] on the path that is walked, at times[0].
        times: to be visited still, descending; the prediction at the last one is scored.
        addresses: b of them, for the candidates at the end.
    """

    x: Tensor
    times: tuple[float, ...]
    addresses: tuple[Address, ...]

    @classmethod
    def of(
        cls,
        x: Tensor,
        times: tuple[float, ...],
        level: int,
        draws: Sequence[int],
        parents: Sequence[Candidate],
    ) -> "Solve":
        """A solve about to begin, its b candidates-to-be numbered ``draws`` at ``level``.

        ``parents`` are b, or none where x are initial noises.
        """
        origins = [parent.nfe for parent in parents] or [None] * len(draws)
        addresses = tuple(
            Address(chain=0, level=level, draw=draw, t=times[0], t_next=times[-1], parent=origin)
            for draw, origin in zip(draws, origins, strict=True)
        )
        return cls(x, times, addresses)


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationsState(FinishState):
    """Progress of a search.

    Args:
        generation: under way or, between two, the next; from 0.
        solve: of this generation; None between two.
        survivors: the candidates that the next generation comes from; empty before the first.
    """

    generation: int = 0
    solve: Solve | None = None
    survivors: tuple[Candidate, ...] = ()


S = TypeVar("S", bound=GenerationsState)


@dataclass(frozen=True)
class Generations(OwnWay, ABC, Generic[S]):
    """Latents are bred, solved in a few predictions, scored at the last; the survivors breed the next.

    Args:
        interpolant, kernel, grid: of the solves, see OwnWay. Where a step is stochastic, that of a solve's
            i-th has the noise of address (1 + i, level, draw).
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def reserve(self) -> int:
        """NFE kept for the finish."""

    @abstractmethod
    def solve_steps(self, sampler: Sampler) -> int:
        """NFE of one solve."""

    @abstractmethod
    def minimum_nfe(self, sampler: Sampler) -> int:
        """See Strategy.minimum_nfe."""

    @abstractmethod
    def sizes(self, problem: Problem) -> Sequence[int]:
        """Solves in each generation."""

    @abstractmethod
    def first(self, problem: Problem) -> S:
        """The state before the first generation."""

    @abstractmethod
    def breed(self, problem: Problem, state: S, size: int) -> tuple[S, Solve]:
        """The next generation, of ``size`` latents, and the state that remembers what it must of them."""

    @abstractmethod
    def select(self, state: S, scored: Sequence[Candidate]) -> S:
        """Set the survivors of a generation that has been scored."""

    def solves(self, problem: Problem) -> int:
        """How many the budget pays for."""
        return (problem.nfe - self.reserve) // self.solve_steps(problem.sampler)

    def init(self, problem: Problem) -> Round[S]:
        """The first prediction of the first generation."""
        check_budget(self, problem)
        return self.step(problem, self.first(problem))

    def step(self, problem: Problem, state: S) -> Round[S]:
        """One prediction for each latent of a generation, or a step of the finish."""
        sizes = self.sizes(problem)
        walk = self.walk(problem.sampler)
        if (walk.interpolant, walk.kernel) == ("linear", "ode"):
            # The same step there, with weights that keep the marginal's to the last bit.
            walk = replace(walk, kernel="ddim", eta=0.0)
        problem = replace(problem, sampler=walk)
        if state.solve is not None:
            return self._advance(problem, state, state.solve)
        if state.generation == len(sizes):
            return finish.advance(problem, state, self.reserve)
        state, solve = self.breed(problem, state, sizes[state.generation])
        return self._advance(problem, state, solve)

    def finished(self, problem: Problem, state: S) -> bool:
        """When all generations and the finish are done with."""
        done = state.solve is None and state.generation == len(self.sizes(problem))
        return done and finish.over(state, self.reserve)

    def unspent(self, problem: Problem, state: S) -> str | None:
        """What is left pays for no solve."""
        if state.ledger.nfe_left == 0:
            return None
        steps = self.solve_steps(problem.sampler)
        return f"{self.name} had too little left for one more run of {steps} NFE"

    def _advance(self, problem: Problem, state: S, solve: Solve) -> Round[S]:
        if len(solve.times) == 1:
            state, scored = evaluate(problem, replace(state, solve=None), solve.x, solve.addresses)
            return self._end(problem, state, scored)
        r, r_next = ([time] * len(solve.x) for time in solve.times[:2])
        state, prediction = predict_unscored(problem, state, solve.x, r)
        step = 1 + self.solve_steps(problem.sampler) - len(solve.times)
        places = [(step, address.level, address.draw) for address in solve.addresses]
        x = moves.step(problem, solve.x, prediction, r, r_next, places)
        return Round(replace(state, solve=replace(solve, x=x, times=solve.times[1:])))

    def _end(self, problem: Problem, state: S, scored: Sequence[Candidate]) -> Round[S]:
        best_before = state.best_reward
        state = self.select(state, scored)
        kept = {survivor.nfe for survivor in state.survivors}
        candidates = decide(scored, kept, best_before)
        best_reward = candidates[-1].best_reward
        best = max((c for c in candidates if c.nfe in kept), key=lambda c: c.reward, default=None)
        levels = () if best is None else (left_with(0, best, best_reward, len(scored)),)
        state = record(problem, state, candidates)
        return Round(
            replace(state, generation=state.generation + 1, levels=state.levels + levels), candidates, levels
        )


def visits(problem: Problem, start: float, end: float, steps: int) -> tuple[float, ...]:
    """The times at which a solve from ``start`` down to ``end`` predicts.

    A whole way is the schedule or grid of so many steps, a part of one is gone at the pace of that of the
    sampler's steps. The step to ``end`` that follows the last needs no further prediction.
    """
    if (start, end) == (1.0, 0.0):
        return times_of(problem, steps)[:-1]
    return paced(Pace(times_of(problem, problem.sampler.steps)), start, end, steps)


def renoised(
    path: Interpolant, parents: Sequence[Candidate], t: float, correlation: float, z: Tensor
) -> Tensor:
    """Latents at t with the data of the parents' predictions, and noise of this correlation with theirs.

    x = alpha x0 + sigma (c eps + sqrt(1 - c^2) z): at c = 1 the parent itself moved to t, at c = 0 its data
    noised anew.

    Args:
        path: that the latents lie on.
        parents: b candidates.
        t: in (0, 1].
        correlation: c in [0, 1].
        z: [b, *latent] standard normal.
    """
    known, there = stack([parent.prediction for parent in parents]), path.at(t)
    noise = correlation * known.eps + math.sqrt(1 - correlation**2) * z
    return there.alpha * known.x0 + there.sigma * noise
