"""The rollover of RBF as arithmetic over one chain: no model, no noise, no batch (paper, algorithm 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sampling.events import Candidate, Decision, Level

Accept = Literal["first", "best"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a budget is laid out before the first draw.

    Args:
        pool: initial noises, over all chains.
        base_quota: Q, draws that every level of every chain has of its own; at least 1.
        shares: evaluations that each chain may spend on its levels, last level included.
        last_level: the level that a chain never leaves; it draws children there until its share is spent.
    """

    pool: int
    base_quota: int
    shares: tuple[int, ...]
    last_level: int


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """One chain between two rounds.

    Args:
        index: from 0.
        current: the candidate that its children are drawn from.
        level: of ``current`` on the grid; children are at level + 1.
        best_reward: r*, the best reward that the chain has moved to or met.
        quota: draws that it has at this level.
        carried: of those, rolled over from the levels before.
        share: evaluations that it may still spend; 0 ends it.
        draws: taken at this level.
        level_best: the best child of this level; None before the first.
    """

    index: int
    current: Candidate
    level: int
    best_reward: float
    quota: int
    carried: int
    share: int
    draws: int = 0
    level_best: Candidate | None = None

    @property
    def room(self) -> int:
        """Children that may still be drawn at this level."""
        return min(self.quota - self.draws, self.share)


def start_chain(plan: Plan, index: int, start: Candidate) -> Chain:
    """A chain at the first level, at its initial noise."""
    chain = Chain(
        index=index,
        current=start,
        level=start.level,
        best_reward=start.reward,
        quota=0,
        carried=0,
        share=plan.shares[index],
    )
    return replace(chain, quota=_quota(plan, chain))


def lengthen(plan: Plan, chain: Chain, more: int) -> Chain:
    """A chain that may spend more: it draws on at the last level; quotas above that stay as they were."""
    share = chain.share + more
    at_last = chain.level == plan.last_level
    return replace(chain, share=share, quota=chain.draws + share if at_last else chain.quota)


def take(
    plan: Plan, chain: Chain, children: Sequence[Candidate], accept: Accept
) -> tuple[Chain, list[Decision], Level | None]:
    """Take children of one chain, all drawn from its current latent, in draw order.

    Args:
        plan: of the search.
        chain: before.
        children: at least one, at most chain.room.
        accept: "first": one by one, so that an improvement leaves the later ones unused; "best": all of them,
            the best improving one wins. With one child they are the same.

    Returns:
        The chain, what became of each child, and the level if the chain has done with it.
    """
    chain = replace(chain, share=chain.share - len(children))
    decisions: list[Decision] = []
    done: Level | None = None
    for group in [children] if accept == "best" else [[child] for child in children]:
        if done is not None:
            decisions.append(Decision.UNUSED)
            continue
        chain, decided, done = _take_together(plan, chain, group)
        decisions += decided
    if chain.share == 0 and chain.level_best is not None:
        done = _level(chain, chain.level_best)
    return chain, decisions, done


def _take_together(
    plan: Plan, chain: Chain, children: Sequence[Candidate]
) -> tuple[Chain, list[Decision], Level | None]:
    best = max(children, key=_reward)
    improved = best.reward > chain.best_reward
    decisions = [Decision.IMPROVED if improved and child is best else Decision.REJECTED for child in children]
    level_best = best if chain.level_best is None else max(chain.level_best, best, key=_reward)
    chain = replace(
        chain,
        draws=chain.draws + len(children),
        level_best=level_best,
        best_reward=max(chain.best_reward, best.reward),
    )
    if chain.level == plan.last_level:
        return chain, decisions, None
    if improved:
        return _descend(plan, chain, best, carried=chain.quota - chain.draws), decisions, _level(chain, best)
    if chain.draws == chain.quota:
        decisions[-1] = Decision.LEVEL_BEST
        return _descend(plan, chain, level_best, carried=0), decisions, _level(chain, level_best)
    return chain, decisions, None


def _descend(plan: Plan, chain: Chain, child: Candidate, carried: int) -> Chain:
    below = replace(chain, current=child, level=chain.level + 1, carried=carried, draws=0, level_best=None)
    return replace(below, quota=_quota(plan, below))


def _quota(plan: Plan, chain: Chain) -> int:
    """Q and what was carried; at the last level all that is left of the share.

    Unused evaluations come out of the share and not out of what is carried, so that decisions are those of
    one draw at a time. Where they have eaten the share, the quota shrinks to leave one draw for each level
    below.
    """
    if chain.level == plan.last_level:
        return chain.share
    return min(plan.base_quota + chain.carried, chain.share - (plan.last_level - chain.level))


def _level(chain: Chain, candidate: Candidate) -> Level:
    return Level(
        chain=chain.index,
        level=candidate.level,
        t=candidate.t_next,
        reward=candidate.reward,
        best_reward=chain.best_reward,
        draws=chain.draws,
        quota=chain.quota,
        carried=chain.carried,
        candidate=candidate.nfe,
    )


def _reward(candidate: Candidate) -> float:
    return candidate.reward
