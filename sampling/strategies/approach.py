"""The approach: a deterministic way from noise to the first level at which predictions tell something."""

from torch import Tensor

from sampling import kernels
from sampling.interpolants import LINEAR
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.schedules import paced
from sampling.state import S, predict_unscored


def descend(problem: Problem, state: S, x: Tensor, r: float, steps: int) -> tuple[S, Tensor]:
    """Take latents down from t = 1, unscored.

    Args:
        problem: on whose sampler's path the latents lie.
        state: before; its ledger is charged ``steps`` evaluations for each row.
        x: [b, *latent] standard normal.
        r: time of the path to come to, in (0, 1).
        steps: evaluations of each row, at least 1.

    Returns:
        The state, and the latents [b, *latent] at r.
    """
    # Whatever is searched with, DDIM without noise walks the linear path's ODE.
    walk = Sampler(interpolant=problem.sampler.interpolant, kernel="ddim", eta=0.0)
    times = visits(problem, r, steps)
    for here, there in zip(times, (*times[1:], r), strict=True):
        state, prediction = predict_unscored(problem, state, x, [here] * len(x))
        x = kernels.step(walk, x, prediction, [here] * len(x), [there] * len(x), None)
    return state, x


def visits(problem: Problem, r: float, steps: int) -> tuple[float, ...]:
    """The times of the sampler's path that ``steps`` evaluations from 1 to r visit, r itself left out.

    At the pace of the model's own pipeline, which walks the linear path, from where the sampler's begins: the
    VP path has some signal left at 1.
    """
    path = problem.sampler.path
    start, end = (LINEAR.time_at_ratio(path.at(time).ratio) for time in (1.0, r))
    linear = paced(problem.pace, start, end, steps)
    return (1.0, *(path.time_at_ratio(LINEAR.at(t).ratio) for t in linear[1:]))
