"""``evolution``: selection and mutation at falling noise levels, after EvoSearch (arXiv 2505.17618).

Simpler than there: truncation selection in place of tournaments, and a parent is known by its prediction, so
that a mutant at any time is its data and a part of its noise.
"""

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
class Evolution(Generations[GenerationsState]):
    """A population of noises, then mutants of the fittest, each generation born at a lower time.

    Generation g of G begins at t = 1 - g / G: the first is initial noises, later ones are the elites in turn,
    brought to t with a part of their noise replaced. Each is solved from there to t = 0 and judged by the
    end; elites are the best of all generations so far. The budget is shared out evenly over the
    generations, the larger shares first; a remainder that pays for no solve stays unspent.

    Args:
        generations: G, at least 1.
        elites: parents of the next generation, at least 1.
        correlation: of a mutant's noise with its parent's, in [0, 1): 0 replaces all of it. The mutation rate
            of EvoSearch is sqrt(1 - correlation^2).
        steps: predictions of a solve, at least 1: with 1 the one-step prediction is the judge.
        finish_steps: evaluations of the finish, at least 0, reserved when the budget is laid out.
        interpolant, kernel, grid: see Generations.
    """

    name: ClassVar[str] = "evolution"

    generations: int = 5
    elites: int = 4
    correlation: float = 0.9
    steps: int = 1
    finish_steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"generations": 1, "elites": 1, "steps": 1, "finish_steps": 0})
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation lies in [0, 1), and was {self.correlation}")

    @property
    def reserve(self) -> int:
        """NFE kept for the finish."""
        return self.finish_steps

    def solve_steps(self, sampler: Sampler) -> int:
        """NFE of one solve."""
        del sampler
        return self.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One solve in each generation, and the finish."""
        return self.generations * self.solve_steps(sampler) + self.finish_steps

    def sizes(self, problem: Problem) -> Sequence[int]:
        """Even shares of the solves."""
        return even_shares(self.solves(problem), self.generations)

    def first(self, problem: Problem) -> GenerationsState:
        """Nothing drawn yet."""
        return GenerationsState(ledger=Ledger(problem.nfe))

    def breed(self, problem: Problem, state: GenerationsState, size: int) -> tuple[GenerationsState, Solve]:
        """Mutants of the elites in turn; in the first generation initial noises."""
        draws = range(size)
        t = 1 - state.generation / self.generations
        x = draw_noise(problem, [(0, state.generation, draw) for draw in draws])
        parents = list(islice(cycle(state.survivors), size))
        if parents:
            x = renoised(problem.sampler.path, parents, t, self.correlation, x)
        return state, Solve.of(x, visits(problem, t, 0.0, self.steps), state.generation, draws, parents)

    def select(self, state: GenerationsState, scored: Sequence[Candidate]) -> GenerationsState:
        """The elites of all generations so far."""
        return replace(state, survivors=keep_best((*state.survivors, *scored), self.elites))
