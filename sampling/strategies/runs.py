"""Plain runs from noise to data, many at once: what base and best_of_n are made of."""

from dataclasses import dataclass, replace

from torch import Tensor

from sampling.events import Decision, Round
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.state import Address, State, draw_noise, evaluate, predict_unscored, record
from sampling.strategies import moves
from sampling.strategies.own_way import times_of


@dataclass(frozen=True, kw_only=True, eq=False)
class RunsState(State):
    """Progress of a list of runs, solved a batch at a time.

    Args:
        x: [b, *latent], the latents of the runs under way at ``level``; None between batches.
        level: of x on the grid.
        started: runs begun.
    """

    x: Tensor | None = None
    level: int = 0
    started: int = 0


def start(problem: Problem) -> RunsState:
    """Nothing run yet."""
    return RunsState(ledger=Ledger(problem.nfe))


def over(state: RunsState, runs: int) -> bool:
    """Whether all ``runs`` have ended."""
    return state.x is None and state.started == runs


def advance(problem: Problem, state: RunsState, runs: int, batch: int) -> Round[RunsState]:
    """One step of the batch under way, or the first step of the next.

    A run costs ``steps`` NFE. The step to t = 0 goes to the predicted data itself (on the linear path that is
    what Euler does), so the last prediction of a run is the one that is scored.

    Args:
        problem: its sampler is walked, path, kernel and grid; see ``own_way.times_of``.
        state: before.
        runs: how many runs in all.
        batch: the most to solve at a time.
    """
    x, state = (
        (state.x, state) if state.x is not None else _begin(problem, state, min(batch, runs - state.started))
    )
    chains = range(state.started - len(x), state.started)
    if state.level == problem.sampler.steps - 1:
        return _score(problem, state, x, chains)
    r, r_next = times_of(problem, problem.sampler.steps)[state.level : state.level + 2]
    state, prediction = predict_unscored(problem, state, x, [r] * len(x))
    places = [(chain, state.level + 1, 0) for chain in chains]
    x = moves.step(problem, x, prediction, [r] * len(x), [r_next] * len(x), places)
    return Round(replace(state, x=x, level=state.level + 1))


def _begin(problem: Problem, state: RunsState, count: int) -> tuple[Tensor, RunsState]:
    chains = range(state.started, state.started + count)
    x = draw_noise(problem, [(chain, 0, 0) for chain in chains])
    return x, replace(state, x=x, level=0, started=state.started + count)


def _score(problem: Problem, state: RunsState, x: Tensor, chains: range) -> Round[RunsState]:
    times, level = times_of(problem, problem.sampler.steps), state.level
    addresses = [
        Address(chain=chain, level=level, draw=0, t=times[max(level - 1, 0)], t_next=times[level])
        for chain in chains
    ]
    state, scored = evaluate(problem, replace(state, x=None), x, addresses)
    candidates = tuple(replace(candidate, decision=Decision.INITIAL) for candidate in scored)
    return Round(record(problem, state, candidates), candidates)
