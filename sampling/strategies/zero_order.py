"""``zero_order``: local search over initial noises (Ma et al., arXiv 2501.09732, section 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from sampling.errors import NotExtendableError
from sampling.events import Candidate
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import draw_noise
from sampling.strategies.generations import Generations, GenerationsState, Solve, visits
from sampling.strategy import check_least


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroOrderState(GenerationsState):
    """Progress of a search; its survivor is the pivot.

    Args:
        noises: [b, *latent], where the runs of this generation began.
        pivot: [*latent], where the run of the pivot began; None where the next noises are fresh.
        failures: generations since the pivot was found.
    """

    noises: Tensor | None = None
    pivot: Tensor | None = None
    failures: int = 0


@dataclass(frozen=True)
class ZeroOrder(Generations[ZeroOrderState]):
    """Neighbours of the best noise so far, each judged by where a solve takes it.

    A neighbour of the pivot n is c n + sqrt(1 - c^2) z: itself a standard normal draw, at a distance of about
    sqrt(2 (1 - c)) times the norm of n. The first generation is fresh noises. As many runs as the budget pays
    for are made; the last generation may be smaller, and a remainder that pays for no run stays unspent.

    With ``steps`` 1 the one-step prediction at t = 1 is the judge, right for few-step models and blind on
    others; the result is then best taken down by a finish.

    Args:
        steps: of a run, at least 1; None: the sampler's. A run costs as many NFE.
        neighbours: runs in a generation, at least 1.
        correlation: c in [0, 1); 0 is random search.
        patience: generations without a better noise before the pivot is left for fresh noises, at least 1;
            None: never.
        finish_steps: evaluations of the finish, at least 0, reserved when the budget is laid out.
        interpolant, kernel, grid: see Generations.
    """

    name: ClassVar[str] = "zero_order"

    steps: int | None = None
    neighbours: int = 4
    correlation: float = 0.95
    patience: int | None = None
    finish_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        optional = {name: 1 for name in ("steps", "patience") if getattr(self, name) is not None}
        check_least(self, {"neighbours": 1, "finish_steps": 0, **optional})
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation lies in [0, 1), and was {self.correlation}")

    @property
    def reserve(self) -> int:
        """NFE kept for the finish."""
        return self.finish_steps

    def solve_steps(self, sampler: Sampler) -> int:
        """NFE of one run."""
        return sampler.steps if self.steps is None else self.steps

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One run and the finish."""
        return self.solve_steps(sampler) + self.finish_steps

    def sizes(self, problem: Problem) -> Sequence[int]:
        """Full generations, and a last one of the runs left."""
        full, more = divmod(self.solves(problem), self.neighbours)
        return [self.neighbours] * full + [more] * (more > 0)

    def first(self, problem: Problem) -> ZeroOrderState:
        """No pivot yet."""
        return ZeroOrderState(ledger=Ledger(problem.nfe))

    def extend(self, problem: Problem, state: ZeroOrderState) -> ZeroOrderState:
        """More generations, where all that the earlier budget paid for were whole.

        Raises:
            NotExtendableError: the last one was smaller, or there is a finish.
        """
        before = replace(problem, nfe=state.ledger.nfe_budget)
        if self.finish_steps or self.solves(before) % self.neighbours:
            raise NotExtendableError(self.name)
        return state

    def breed(self, problem: Problem, state: ZeroOrderState, size: int) -> tuple[ZeroOrderState, Solve]:
        """Neighbours of the pivot, or fresh noises."""
        done = state.generation * self.neighbours
        draws = range(done, done + size)
        x = draw_noise(problem, [(0, 0, draw) for draw in draws])
        if state.pivot is not None:
            x = self.correlation * state.pivot + math.sqrt(1 - self.correlation**2) * x
        times = visits(problem, 1.0, 0.0, self.solve_steps(problem.sampler))
        parents = state.survivors * size
        return replace(state, noises=x), Solve.of(x, times, 0, draws, parents)

    def select(self, state: ZeroOrderState, scored: Sequence[Candidate]) -> ZeroOrderState:
        """The best run becomes the pivot if it beats the present one."""
        best = max(range(len(scored)), key=lambda i: scored[i].reward)
        if not state.survivors or scored[best].reward > state.survivors[0].reward:
            pivot = None if state.noises is None else state.noises[best]
            return replace(state, survivors=(scored[best],), pivot=pivot, failures=0)
        if state.failures + 1 == self.patience:
            return replace(state, survivors=(), pivot=None, failures=0)
        return replace(state, failures=state.failures + 1)
