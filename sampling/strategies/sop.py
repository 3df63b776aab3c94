"""``sop``: search over paths (Ma et al., arXiv 2501.09732, section 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import ClassVar

from sampling.events import Candidate
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import draw_noise, keep_best
from sampling.strategies.generations import Generations, GenerationsState, Solve, renoised, visits
from sampling.strategy import check_least, even_shares


@dataclass(frozen=True)
class Sop(Generations[GenerationsState]):
    """Paths that go down a long way, back up a little less, and branch there.

    Initial noises are solved from t = 1 by ``back``. Then, round for round, the best ``paths`` latents are
    each noised by ``forward``, several times, and solved down by ``back``, until t = 0 is reached; only the
    new ones compete. The budget is shared out evenly over the rounds, the larger shares first; a remainder
    that pays for no solve stays unspent.

    Args:
        paths: survivors of a round, at least 1.
        forward: how far noise is added, in time on the path that is walked.
        back: how far a solve goes, likewise; 0 < forward < back < 1, and at least .01 apart, or there would
            be no end of rounds.
        steps: predictions of a solve, at least 1; the last one is scored.
        interpolant, kernel, grid: see Generations.
    """

    name: ClassVar[str] = "sop"

    paths: int = 2
    forward: float = 0.78
    back: float = 0.81
    steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"paths": 1, "steps": 1})
        if not 0 < self.forward < self.back < 1:
            raise ValueError(f"0 < forward < back < 1, and they were {self.forward} and {self.back}")
        if self.back - self.forward < 0.01 - _ROUNDING:
            raise ValueError(f"back is at least forward + 0.01, and they were {self.back} and {self.forward}")

    @property
    def rounds(self) -> int:
        """Rounds until t = 0, that of the initial noises included."""
        return 1 + math.ceil((1 - self.back) / (self.back - self.forward) - _ROUNDING)

    @property
    def reserve(self) -> int:
        """No finish: the last round ends at t = 0."""
        return 0

    def solve_steps(self, sampler: Sampler) -> int:
        """NFE of one solve."""
        del sampler
        return self.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One solve of each path in each round."""
        return self.rounds * self.paths * self.solve_steps(sampler)

    def sizes(self, problem: Problem) -> Sequence[int]:
        """Even shares of the solves."""
        return even_shares(self.solves(problem), self.rounds)

    def first(self, problem: Problem) -> GenerationsState:
        """Nothing drawn yet."""
        return GenerationsState(ledger=Ledger(problem.nfe))

    def breed(self, problem: Problem, state: GenerationsState, size: int) -> tuple[GenerationsState, Solve]:
        """The survivors in turn, noised anew; in the first round initial noises."""
        low = 1 - self.back - state.generation * (self.back - self.forward)
        draws = range(size)
        x = draw_noise(problem, [(0, state.generation, draw) for draw in draws])
        start = low + self.back
        parents = list(islice(cycle(state.survivors), size))
        if parents:
            # Noise added to the latent at t = before; renoised knows it by its data and what is left of its
            # own noise.
            path = problem.sampler.path
            left = path.at(start).ratio / path.at(start - self.forward).ratio
            x = renoised(path, parents, start, left, x)
        times = visits(problem, start, max(low, 0.0), self.steps)
        return state, Solve.of(x, times, state.generation, draws, parents)

    def select(self, state: GenerationsState, scored: Sequence[Candidate]) -> GenerationsState:
        """The best of the round."""
        return replace(state, survivors=keep_best(scored, self.paths))


_ROUNDING = 1e-9
