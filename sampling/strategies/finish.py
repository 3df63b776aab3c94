"""The finish: a few deterministic steps from the best candidate of a search to t = 0."""

from dataclasses import dataclass, replace
from typing import TypeVar

from sampling.events import Candidate, Decision, Round
from sampling.interpolants import LINEAR
from sampling.problem import Problem
from sampling.state import Address, State, evaluate, left_with, record
from sampling.strategies.moves import children


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishState(State):
    """Progress of a search that may end with a finish.

    Args:
        finishing: the latest candidate of the finish; None before it.
        finish_times: times that the finish has still to visit.
    """

    finishing: Candidate | None = None
    finish_times: tuple[float, ...] = ()


S = TypeVar("S", bound=FinishState)


def advance(problem: Problem, state: S, steps: int) -> Round[S]:
    """One deterministic step towards t = 0 from the best of the run, scored like any other candidate.

    Args:
        problem: on whose sampler's path the candidates of the run lie.
        state: before.
        steps: evaluations of the whole finish, at least 1.
    """
    parent = state.finishing or state.best[0]
    times = state.finish_times or finish_times(problem, parent.t_next, steps)
    address = Address(
        chain=parent.chain,
        level=problem.sampler.steps,
        draw=steps - len(times),
        t=parent.t_next,
        t_next=times[0],
        parent=parent.nfe,
    )
    # Whatever was searched with, DDIM without noise walks the linear path's ODE.
    sampler = replace(problem.sampler, kernel="ddim", eta=0.0)
    x = children(replace(problem, sampler=sampler), [parent], [address])
    best_before = state.best_reward
    state, (scored,) = evaluate(problem, state, x, [address])
    improved = best_before is not None and scored.reward > best_before
    candidate = replace(scored, decision=Decision.IMPROVED if improved else Decision.REJECTED)
    # The end of the finish: t = 0 is where its last prediction stands.
    end = replace(left_with(candidate.chain, candidate, candidate.best_reward, steps), t=0.0)
    levels = () if times[1:] else (end,)
    state = replace(
        record(problem, state, [candidate]),
        finishing=candidate,
        finish_times=times[1:],
        levels=state.levels + levels,
    )
    return Round(state, (candidate,), levels)


def over(state: FinishState, steps: int) -> bool:
    """Whether a finish of ``steps`` evaluations, perhaps none, has been made."""
    return steps == 0 or (state.finishing is not None and not state.finish_times)


def finish_times(problem: Problem, r: float, steps: int) -> tuple[float, ...]:
    """The times of the sampler's path that ``steps`` evaluations between r and the data visit.

    At the pace of the model's own pipeline, which walks the linear path; the step to t = 0 that follows the
    last is the predicted data itself and costs nothing.
    """
    path, pace = problem.sampler.path, problem.pace
    k = pace.part_at(LINEAR.time_at_ratio(path.at(r).ratio))
    visits = [pace.time_at(k * (1 - i / (steps + 1))) for i in range(1, steps + 1)]
    return tuple(path.time_at_ratio(LINEAR.at(visit).ratio) for visit in visits)
