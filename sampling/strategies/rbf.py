"""Rollover Budget Forcing (arXiv 2503.19385, section 5 and algorithm 2), its authors' way and ours.

A chain walks down the grid. At each level it draws children of its latent; the first that beats the chain's
best reward r* becomes its latent at once, and the draws it did not need roll over to the next level. If the
quota is spent with no such child, the chain goes on from the best child of the level. The arithmetic of one
chain is in rollover.py; this file batches the chains, fills the initial pool and finishes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from sampling.events import Candidate, Decision, Level, Round
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import Address, chunks, draw_noise, evaluate, keep_best, record
from sampling.strategies import approach, finish, moves
from sampling.strategies.finish import FinishState
from sampling.strategies.rollover import Accept, Chain, Plan, lengthen, start_chain, take
from sampling.strategy import check_budget, check_least, even_shares


@dataclass(frozen=True, kw_only=True, eq=False)
class RbfState(FinishState):
    """Progress of a search.

    Args:
        pool_drawn: initial noises scored.
        starts: the initial noises that the chains will start from, best of those scored.
        chains: one each, empty until the pool is complete.
    """

    pool_drawn: int = 0
    starts: tuple[Candidate, ...] = ()
    chains: tuple[Chain, ...] = ()

    @property
    def pictured(self) -> tuple[Candidate, ...]:
        """See State; the result of upstream is a best child of the levels where the chains stand."""
        return (*self.best, *(chain.level_best for chain in self.chains if chain.level_best is not None))


@dataclass(frozen=True, slots=True)
class Rbf:
    """The parameters of a search.

    Args:
        mode: "rollover" spends the budget exactly, finishes at t = 0 and returns the best of the run.
            "upstream" does as the authors' program: a pool for each chain, a quota laid out over ``steps``
            levels of which the last is never reached, one draw at a time, a stop when nfe + chains >=
            budget, and the best one-step prediction among the chains' present levels as the result.
        chains: walked side by side and evaluated together, at least 1.
        initial_noises: scored at t = 1 before the first level, at least 1: in all for "rollover", for each
            chain for "upstream".
        width: children of a chain evaluated at once, at least 1; "upstream" has 1.
        accept: which of them a chain takes: "first" decides as width 1 does, "best" takes the best
            improving one.
        finish_steps: evaluations of the finish, at least 0, reserved when the budget is laid out.
            "upstream" has no finish.
        start: "best": every chain starts from the best noise; "top": chain i from the i-th best. "upstream"
            starts every chain from the best of its own pool.
        plan_nfe: the budget that quotas are laid out for; what the true one has beyond it is drawn at the
            last level. None: the true one.
        first_level: of the grid, where the initial noises are scored and the chains begin, at least 0; above
            it predictions of an undistilled model tell nothing. "upstream" has 0.
        approach_steps: evaluations of each initial noise on its deterministic way to ``first_level``, at
            least 1; none at level 0.
    """

    name: ClassVar[str] = "rbf"

    mode: Literal["rollover", "upstream"] = "rollover"
    chains: int = 2
    initial_noises: int = 25
    width: int = 1
    accept: Accept = "first"
    finish_steps: int = 4
    start: Literal["best", "top"] = "best"
    plan_nfe: int | None = None
    first_level: int = 0
    approach_steps: int = 2

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, and was {getattr(self, name)!r}")
        optional = {} if self.plan_nfe is None else {"plan_nfe": 1}
        least = {"chains": 1, "initial_noises": 1, "width": 1, "finish_steps": 0, **optional}
        check_least(self, {**least, "first_level": 0, "approach_steps": 1})
        if self.upstream and self.width != 1:
            raise ValueError(f"upstream draws one child at a time; width was {self.width}")
        if self.upstream and self.first_level:
            raise ValueError(f"upstream begins at level 0; first_level was {self.first_level}")
        if self.start == "top" and self.initial_noises < self.chains and not self.upstream:
            raise ValueError(
                f"{self.chains} chains cannot start from the top of {self.initial_noises} noises"
            )

    @property
    def upstream(self) -> bool:
        """Whether this is the authors' way."""
        return self.mode == "upstream"

    @property
    def pool(self) -> int:
        """Initial noises over all chains."""
        return self.initial_noises * (self.chains if self.upstream else 1)

    @property
    def pool_nfe(self) -> int:
        """What the initial noises cost, with their way to the first level."""
        return self.pool * (1 + self.approach_steps if self.first_level else 1)

    @property
    def reserve(self) -> int:
        """NFE kept for the finish."""
        return 0 if self.upstream else self.finish_steps

    def levels(self, sampler: Sampler) -> int:
        """Levels that the quota is laid out over: those with draws, and upstream one never reached."""
        if sampler.steps < self.first_level + 2:
            raise ValueError(
                f"rbf needs a sampler of at least 2 steps from its first level on: with {sampler.steps} "
                f"there is no level to draw at below level {self.first_level}"
            )
        return sampler.steps - self.first_level - (0 if self.upstream else 1)

    def minimum_nfe(self, sampler: Sampler) -> int:
        """Pool and finish, and one draw at every level of every chain."""
        return self.pool_nfe + self.reserve + self.levels(sampler) * self.chains

    def plan(self, problem: Problem) -> Plan:
        """The budget laid out."""
        planned = problem.nfe if self.plan_nfe is None else self.plan_nfe
        laid_out = planned - self.pool_nfe - self.reserve
        return Plan(
            pool=self.pool,
            base_quota=laid_out // (self.levels(problem.sampler) * self.chains),
            shares=even_shares(self._for_draws(problem.nfe - self.pool_nfe), self.chains),
            last_level=problem.sampler.steps - 2,
        )

    def _for_draws(self, left: int) -> int:
        """What is drawn of ``left`` NFE when the pool has been."""
        # Upstream's rounds go on while nfe + chains < budget.
        return (left - 1) // self.chains * self.chains if self.upstream else left - self.reserve

    def extend(self, problem: Problem, state: RbfState) -> RbfState:
        """More draws for every chain from where it stands, and a finish of its own after them."""
        if not state.chains:
            return state  # they start with shares of the new budget
        plan, waiting = self.plan(problem), sum(chain.share for chain in state.chains)
        more = self._for_draws(problem.nfe - state.ledger.nfe_spent) - waiting
        chains = zip(state.chains, even_shares(max(more, 0), self.chains), strict=True)
        lengthened = tuple(lengthen(plan, chain, share) for chain, share in chains)
        return replace(state, chains=lengthened, finishing=None, finish_times=())

    def init(self, problem: Problem) -> Round[RbfState]:
        """The initial noises, or the first ``max_batch`` of them."""
        planned = problem.nfe if self.plan_nfe is None else min(problem.nfe, self.plan_nfe)
        check_budget(self, replace(problem, nfe=planned))
        return _fill_pool(self, problem, RbfState(ledger=Ledger(problem.nfe)))

    def step(self, problem: Problem, state: RbfState) -> Round[RbfState]:
        """More of the pool, or children for every chain that has a share left, or a step of the finish."""
        if not state.chains:
            return _fill_pool(self, problem, state)
        if any(chain.share for chain in state.chains):
            return _draw_children(self, problem, state)
        return finish.advance(problem, state, self.reserve)

    def finished(self, problem: Problem, state: RbfState) -> bool:
        """When every share and the finish are spent."""
        del problem
        if not state.chains or any(chain.share for chain in state.chains):
            return False
        return finish.over(state, self.reserve)

    def unspent(self, problem: Problem, state: RbfState) -> str | None:
        """Only upstream leaves some."""
        del problem
        if state.ledger.nfe_left == 0:
            return None
        return f"upstream stops when the NFE spent and its {self.chains} chains together reach the budget"


_CHOICES = {"mode": ("rollover", "upstream"), "accept": ("first", "best"), "start": ("best", "top")}


def _fill_pool(rbf: Rbf, problem: Problem, state: RbfState) -> Round[RbfState]:
    part = chunks(rbf.pool - state.pool_drawn, problem.max_batch)[0]
    numbers = range(rbf.pool)[state.pool_drawn :][part]
    # (chain, level, draw): in the shared pool of rollover every noise is chain 0's.
    places = [(number // rbf.initial_noises, 0, number % rbf.initial_noises) for number in numbers]
    start = problem.sampler.times[rbf.first_level]
    addresses = [
        Address(chain=chain, level=rbf.first_level, draw=draw, t=1.0, t_next=start)
        for chain, _, draw in places
    ]
    x = draw_noise(problem, places)
    before = state.ledger.nfe_spent
    if rbf.first_level:
        state, x = approach.descend(problem, state, x, start, rbf.approach_steps)
    state, scored = evaluate(problem, state, x, addresses)
    # Counted noise by noise, each with its approach, so that the numbers do not tell the size of the batch.
    each = (state.ledger.nfe_spent - before) // len(scored)
    candidates = tuple(
        replace(candidate, decision=Decision.INITIAL, nfe=before + each * number)
        for number, candidate in enumerate(scored, start=1)
    )
    state = replace(
        record(problem, state, candidates),
        pool_drawn=state.pool_drawn + len(candidates),
        starts=_starts(rbf, (*state.starts, *candidates)),
    )
    if state.pool_drawn < rbf.pool:
        return Round(state, candidates)
    return _start_chains(rbf, problem, state, candidates)


def _starts(rbf: Rbf, noises: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The best of each chain's pool upstream, the best ``chains`` of the one pool in rollover."""
    if not rbf.upstream:
        return keep_best(noises, rbf.chains)
    pools = [[noise for noise in noises if noise.chain == chain] for chain in range(rbf.chains)]
    return tuple(best for pool in pools for best in keep_best(pool, 1))


def _start_chains(
    rbf: Rbf, problem: Problem, state: RbfState, candidates: tuple[Candidate, ...]
) -> Round[RbfState]:
    plan = rbf.plan(problem)
    spread = rbf.upstream or rbf.start == "top"
    starts = [state.starts[index if spread else 0] for index in range(rbf.chains)]
    chains = tuple(start_chain(plan, index, start) for index, start in enumerate(starts))
    levels = tuple(
        Level(
            chain=chain.index,
            level=rbf.first_level,
            t=problem.sampler.times[rbf.first_level],
            reward=chain.best_reward,
            best_reward=chain.best_reward,
            draws=rbf.initial_noises,
            quota=rbf.initial_noises,
            carried=0,
            candidate=chain.current.nfe,
        )
        for chain in chains
    )
    state = replace(state, chains=chains, starts=(), levels=state.levels + levels)
    return Round(state, candidates, levels)


def _draw_children(rbf: Rbf, problem: Problem, state: RbfState) -> Round[RbfState]:
    plan, times = rbf.plan(problem), problem.sampler.times
    # One entry a child: its chain (before the round) and its number among the draws at this level.
    drawn = [
        (chain, chain.draws + ahead) for chain in state.chains for ahead in range(min(rbf.width, chain.room))
    ]
    addresses = [
        Address(
            chain=chain.index,
            level=chain.level + 1,
            draw=draw,
            t=times[chain.level],
            t_next=times[chain.level + 1],
            parent=chain.current.nfe,
            quota=chain.quota,
            carried=chain.carried,
        )
        for chain, draw in drawn
    ]
    x = moves.children(problem, [chain.current for chain, _ in drawn], addresses)
    state, children = evaluate(problem, state, x, addresses)
    chains: list[Chain] = []
    candidates: list[Candidate] = []
    levels: list[Level] = []
    for chain in state.chains:
        own = [child for child in children if child.chain == chain.index]
        if not own:
            chains.append(chain)
            continue
        moved, decisions, level = take(plan, chain, own, rbf.accept)
        decided = {c.nfe: replace(c, decision=d) for c, d in zip(own, decisions, strict=True)}
        chains.append(moved)
        candidates += decided.values()
        levels += [level] if level else []
    unused = sum(candidate.decision is Decision.UNUSED for candidate in candidates)
    state = replace(
        record(problem, state, candidates),
        ledger=state.ledger.unused(unused),
        chains=tuple(chains),
        levels=(*state.levels, *levels),
    )
    if rbf.upstream:
        state = replace(state, best=_upstream_best(state.chains)[: problem.keep])
    return Round(state, tuple(candidates), tuple(levels))


def _upstream_best(chains: Sequence[Chain]) -> tuple[Candidate, ...]:
    """The best of each chain's present level, best first.

    A chain that has just gone down has none until its next draw; if all have, it is what chain 0 went down
    to.
    """
    standing = [chain.level_best for chain in chains if chain.level_best is not None]
    return tuple(sorted(standing, key=lambda c: -c.reward)) or (chains[0].current,)
