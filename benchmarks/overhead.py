"""Wall time of a search over the time of the same bare model, decode and reward calls, in one run.

python -m benchmarks.overhead --nfe 200 --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from benchmarks.setup import Method, Task, run
from benchmarks.tables import save, table
from models.rewards.protocol import checked_score
from sampling.problem import Scores
from sampling.sampler import Sampler
from sampling.search import search
from sampling.strategies import make_strategy

PROMPT = "two red circles and a blue square"
METHODS = {"rbf": Method("rbf", {}, {}), "best_of_n": Method("best_of_n", {}, {})}


Calls = list[tuple[Literal["velocity", "score"], int]]
"""What a search called, in order, and with how many latents."""


def calls_of(task: Task, method: Method, nfe: int) -> Calls:
    """The velocity calls and the decode-and-reward calls of a search."""
    calls: Calls = []
    problem = task.problem(nfe, 0, replace(Sampler(), **method.sampler))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls.append(("velocity", len(x)))
        return problem.velocity(x, t)

    def score(x0: Tensor) -> Scores:
        calls.append(("score", len(x0)))
        return problem.score(x0)

    counted = replace(problem, velocity=velocity, score=score)
    list(search(counted, make_strategy(method.strategy, method.at(nfe))))
    return calls


def bare(task: Task, calls: Calls) -> None:
    """The same calls in the same order on latents at hand, and nothing else."""
    latents = torch.randn(max(size for _, size in calls), *task.session.latent_shape)
    times = torch.full((len(latents),), 0.8)
    (part,) = task.steering.parts.values()
    for kind, size in calls:
        if kind == "velocity":
            task.session.velocity(latents[:size], times[:size])
        else:
            images = task.session.decode(latents[:size])
            checked_score("reward", part.reward, images, task.prompt).tolist()


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    started = clock()
    with torch.inference_mode():
        function()
    return clock() - started


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    task = Task.of(PROMPT)
    rows, data = [], {}
    for name, method in METHODS.items():
        calls = calls_of(task, method, options.nfe)
        pairs = [
            (timed(lambda m=method: run(task, m, options.nfe, 0)), timed(lambda c=calls: bare(task, c)))
            for _ in range(options.repeats)
        ]
        ratios = [ours / floor for ours, floor in pairs]
        ours, floor = (statistics.median(column) for column in zip(*pairs, strict=True))
        data[name] = {"seconds": pairs, "ratio": statistics.median(ratios)}
        rows.append(
            [
                name,
                f"{ours:.2f}",
                f"{floor:.2f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        )
    header = [f"{options.nfe} NFE", "search, s", "bare calls, s", "median ratio", "range"]
    save("overhead", {"settings": vars(options), **data}, table(header, rows))


if __name__ == "__main__":
    main()
