"""Wall time of a search over the time of the same bare model, decode and reward calls, in one run.

python -m benchmarks.overhead --nfe 200 --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.setup import Method, Task, run
from benchmarks.tables import save, table
from models.rewards.protocol import checked_score
from sampling.sampler import Sampler
from sampling.search import search
from sampling.strategies import make_strategy

PROMPT = "two red circles and a blue square"
METHODS = {"rbf": Method("rbf", {}, {}), "best_of_n": Method("best_of_n", {}, {})}


def batch_sizes(task: Task, method: Method, nfe: int) -> tuple[list[int], list[int]]:
    """How many latents each velocity call and each decode-and-reward call of a search has."""
    calls: tuple[list[int], list[int]] = ([], [])
    problem = task.problem(nfe, 0, Sampler())

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls[0].append(len(x))
        return problem.velocity(x, t)

    def score(x0: Tensor) -> object:
        calls[1].append(len(x0))
        return problem.score(x0)

    counted = type(problem)(**{**_fields(problem), "velocity": velocity, "score": score})
    list(search(counted, make_strategy(method.strategy, method.params)))
    return calls


def _fields(problem: object) -> dict[str, object]:
    return {name: getattr(problem, name) for name in problem.__dataclass_fields__}  # type: ignore[attr-defined]


def bare(task: Task, calls: tuple[list[int], list[int]]) -> None:
    """The same calls on latents at hand, and nothing else."""
    latents = torch.randn(max(max(part) for part in calls), *task.session.latent_shape)
    times = torch.full((len(latents),), 0.8)
    (part,) = task.steering.parts.values()
    for size in calls[0]:
        task.session.velocity(latents[:size], times[:size])
    for size in calls[1]:
        checked_score("reward", part.reward, task.session.decode(latents[:size]), task.prompt).tolist()


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    with torch.inference_mode():
        function()
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    task = Task.of(PROMPT)
    rows, data = [], {}
    for name, method in METHODS.items():
        calls = batch_sizes(task, method, options.nfe)
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
