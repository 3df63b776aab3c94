"""How a budget is laid out, by each strategy.

The arithmetic repeats that of `sampling`, which this package may not import: a test holds it to what
searches spend.
"""

from pydantic import BaseModel, ConfigDict, Field

from contracts.requests import ResolvedRequest
from contracts.search import (
    BaseParams,
    BestOfNParams,
    CodeParams,
    EvolutionParams,
    RbfParams,
    SmcParams,
    SopParams,
    SvddParams,
    ZeroOrderParams,
)


class NfePlan(BaseModel):
    """How a budget is laid out: the initial noises, then levels x chains x draws, then a finish; or runs.

    What is null does not apply, or is found by the search as it goes.
    """

    model_config = ConfigDict(frozen=True)

    nfe: int = Field(description="the search spends so much, or less where something ends it earlier")
    nfe_unspent: int = Field(
        description="what it leaves of the budget: too little for one more run or draw, or of no use to it"
    )
    initial_noises: int | None = Field(default=None, description="scored before the first level")
    chains: int | None = None
    levels: int | None = Field(
        default=None, description="at which each chain draws; blocks of levels for `code`"
    )
    quota: int | None = Field(
        default=None,
        description="draws of a chain at a level, before any roll over, or any remainder that buys one more",
    )
    shares: tuple[int, ...] | None = Field(default=None, description="draws of each chain in all")
    draws: tuple[int, ...] | None = Field(
        default=None,
        description="of all chains together at each level, in each block or in each generation, where that "
        "is known beforehand",
    )
    finish_steps: int | None = None
    runs: int | None = Field(default=None, description="independent runs, of `steps` each")
    steps: int | None = Field(
        default=None, description="evaluations of a run or draw; the last block of `code` may have fewer"
    )


def plan_of(request: ResolvedRequest) -> NfePlan:
    """Lay out a budget as the strategy will."""
    match request.search:
        case RbfParams() as search:
            return rbf_plan(request, search)
        case BaseParams() | BestOfNParams():
            return runs_plan(request)
        case SmcParams() as search:
            return smc_plan(request, search)
        case SvddParams() | CodeParams() as search:
            return blocks_plan(request, search)
        case ZeroOrderParams() | SopParams() | EvolutionParams() as search:
            return generations_plan(request, search)


def rbf_plan(request: ResolvedRequest, search: RbfParams) -> NfePlan:
    """Lay out the budget of Rollover Budget Forcing (`sampling.strategies.rbf.Rbf.plan`)."""
    chains, pool_nfe = search.chains, search.pool_nfe
    left = request.budget.nfe - pool_nfe - search.finish
    planned = request.budget.nfe if search.plan_nfe is None else search.plan_nfe
    spend = (left - 1) // chains * chains if search.upstream else left
    laid_out = search.levels(request.sampler)
    return NfePlan(
        nfe=pool_nfe + spend + search.finish,
        nfe_unspent=left - spend,
        initial_noises=search.pool,
        chains=chains,
        levels=laid_out - search.upstream,
        quota=(planned - pool_nfe - search.finish) // (laid_out * chains),
        shares=even_shares(spend, chains),
        finish_steps=search.finish,
    )


def runs_plan(request: ResolvedRequest) -> NfePlan:
    """Count the runs: one of `base`, else `sampling.strategies.best_of_n.BestOfN.runs`."""
    budget, steps = request.budget.nfe, request.search.minimum_nfe(request.sampler)
    runs = 1 if isinstance(request.search, BaseParams) else budget // steps
    return NfePlan(nfe=runs * steps, nfe_unspent=budget - runs * steps, runs=runs, steps=steps)


def smc_plan(request: ResolvedRequest, search: SmcParams) -> NfePlan:
    """Tell how many particles each level holds (`sampling.strategies.smc.Smc.sizes`)."""
    budget, levels = request.budget.nfe, request.sampler.steps
    return NfePlan(
        nfe=budget,
        nfe_unspent=0,
        levels=levels,
        draws=even_shares(budget - search.finish_steps, levels),
        finish_steps=search.finish_steps,
        steps=1,
    )


def blocks_plan(request: ResolvedRequest, search: SvddParams | CodeParams) -> NfePlan:
    """Tell how many continuations each block has (`sampling.strategies.blocks.Blocks.counts`)."""
    steps, length = request.sampler.steps, search.candidate_nfe(request.sampler)
    quota, left = divmod(request.budget.nfe - search.finish_steps, search.chains * steps)
    more: list[int] = []
    for start in range(0, steps, length):
        cost = min(length, steps - start)
        more.append(min(left // cost, search.chains))
        left -= more[-1] * cost
    return NfePlan(
        nfe=request.budget.nfe - left,
        nfe_unspent=left,
        chains=search.chains,
        levels=len(more),
        quota=quota,
        shares=tuple(sum(quota + (chain < extra) for extra in more) for chain in range(search.chains)),
        draws=tuple(quota * search.chains + extra for extra in more),
        finish_steps=search.finish_steps,
        steps=length,
    )


def generations_plan(
    request: ResolvedRequest, search: ZeroOrderParams | SopParams | EvolutionParams
) -> NfePlan:
    """Tell how many solves each generation has (`sampling.strategies.generations.Generations.sizes`)."""
    steps = search.candidate_nfe(request.sampler)
    finish = 0 if isinstance(search, SopParams) else search.finish_steps
    solves, left = divmod(request.budget.nfe - finish, steps)
    match search:
        case ZeroOrderParams():
            full, more = divmod(solves, search.neighbours)
            draws = (search.neighbours,) * full + (more,) * (more > 0)
        case SopParams():
            draws = even_shares(solves, search.rounds)
        case EvolutionParams():
            draws = even_shares(solves, search.generations)
    return NfePlan(
        nfe=request.budget.nfe - left,
        nfe_unspent=left,
        draws=draws,
        finish_steps=finish,
        steps=steps,
    )


def even_shares(total: int, parts: int) -> tuple[int, ...]:
    """Return `total` in `parts` that differ by at most one, the larger first."""
    each, more = divmod(total, parts)
    return tuple(each + (part < more) for part in range(parts))
