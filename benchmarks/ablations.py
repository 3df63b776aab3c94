"""`rbf` with one of its ideas taken out, and the authors' way with one of ours put in: for benchmarks."""

from dataclasses import replace

from sampling.events import Round
from sampling.problem import Problem
from sampling.state import keep_best
from sampling.strategies.rbf import Rbf, RbfState
from sampling.strategies.rollover import Chain, Plan


class WithoutRollover(Rbf):
    """A level that improves leaves its spare draws to the last level, not to the next."""

    __slots__ = ()

    def step(self, problem: Problem, state: RbfState) -> Round[RbfState]:
        """See `Rbf`."""
        after = super().step(problem, state)
        plan = self.plan(problem)
        chains = tuple(_with_its_own(plan, chain) for chain in after.state.chains)
        return replace(after, state=replace(after.state, chains=chains))


def _with_its_own(plan: Plan, chain: Chain) -> Chain:
    if not chain.carried or chain.level == plan.last_level:
        return chain
    left = chain.share - (plan.last_level - chain.level)
    return replace(chain, carried=0, quota=min(plan.base_quota, left))


class EndOfRun(Rbf):
    """The result is where the finish ends, not the best candidate of the run."""

    __slots__ = ()

    def step(self, problem: Problem, state: RbfState) -> Round[RbfState]:
        """See `Rbf`."""
        after = super().step(problem, state)
        if after.state.finishing is None or not self.finished(problem, after.state):
            return after
        return replace(after, state=replace(after.state, best=(after.state.finishing,)))


class BestOfRun(Rbf):
    """The authors' way, and the result is the best candidate of the run, initial noises included."""

    __slots__ = ()

    def step(self, problem: Problem, state: RbfState) -> Round[RbfState]:
        """See `Rbf`."""
        after = super().step(problem, state)
        best = keep_best((*state.best, *after.candidates), problem.keep)
        return replace(after, state=replace(after.state, best=best))


ABLATIONS: dict[str, type[Rbf]] = {
    "rbf without rollover": WithoutRollover,
    "rbf, the end of the run": EndOfRun,
    "upstream, the best of the run": BestOfRun,
}
"""By the name that a `Method` has in place of a strategy's."""
