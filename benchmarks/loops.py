"""Time of our search, of its bare calls, and of the authors' loop written down plainly, in one run.

python -m benchmarks.loops --nfe 200 --repeats 7
OMP_NUM_THREADS=1 python -m benchmarks.loops --clock processor    # on a busy machine
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.overhead import PROMPT, bare, calls_of, timed
from benchmarks.setup import Method, Task, run
from benchmarks.tables import save, table
from sampling import kernels
from sampling.prediction import Prediction, predict, stack, unstack
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import draw_noise

SETTINGS: dict[str, dict[str, Any]] = {
    "rbf": {},
    "rbf, 4 chains": {"chains": 4},
    "rbf, 4 chains, width 4": {"chains": 4, "width": 4},
}
INITIAL_NOISES = 25
MINIBATCH = 5
"""Rows in one model call of the authors' program."""


@dataclass
class Chain:
    """Where one chain of the authors' loop stands, and the best child of its level."""

    x: Tensor
    prediction: Prediction
    best: float
    quota: int
    level: int = 0
    draws: int = 0
    child: tuple[float, Tensor, Prediction] | None = None


class AuthorsLoop:
    """What the authors' program does, and nothing that makes it faster: mode "upstream" in a plain loop.

    Each round draws one candidate for each chain. The chains share the model call, in minibatches; every
    candidate is decoded alone and scored alone.
    """

    def __init__(self, problem: Problem, chains: int, initial_noises: int = INITIAL_NOISES) -> None:
        self.problem = problem
        self.count = chains
        self.initial_noises = initial_noises
        self.quota = (problem.nfe - chains * initial_noises) // (problem.sampler.steps * chains)
        self.spent = 0

    def evaluate(self, x: Tensor, r: list[float]) -> tuple[list[Prediction], list[float]]:
        """Predictions of latents x [b, ...] at b times, and their rewards."""
        path, rows = self.problem.sampler.path, []
        for start in range(0, len(x), MINIBATCH):
            part = slice(start, start + MINIBATCH)
            rows += unstack(predict(self.problem.velocity, path, x[part], r[part]))
        self.spent += len(x)
        return rows, [self.problem.score(row.x0[None]).rewards[0] for row in rows]

    def start(self) -> list[Chain]:
        """Every chain at the best of its own initial noises."""
        noises = self.initial_noises
        x = draw_noise(self.problem, [(c, 0, i) for c in range(self.count) for i in range(noises)])
        predictions, rewards = self.evaluate(x, [1.0] * len(x))
        chains = []
        for first in range(0, len(x), noises):
            best = max(range(first, first + noises), key=rewards.__getitem__)
            chains.append(Chain(x[best], predictions[best], rewards[best], self.quota))
        return chains

    def children(self, chains: list[Chain]) -> tuple[Tensor, list[float]]:
        """One child of each chain, and its time."""
        sampler = self.problem.sampler
        x, prediction = torch.stack([c.x for c in chains]), stack([c.prediction for c in chains])
        z = draw_noise(self.problem, [(i, c.level + 1, c.draws) for i, c in enumerate(chains)])
        r_next = [sampler.times[c.level + 1] for c in chains]
        return kernels.step(
            sampler, x, prediction, [sampler.times[c.level] for c in chains], r_next, z
        ), r_next

    def search(self) -> float:
        """The reward of what the program would return."""
        chains = self.start()
        while self.spent + self.count < self.problem.nfe:
            x, r_next = self.children(chains)
            predictions, rewards = self.evaluate(x, r_next)
            for chain, reward, latent, prediction in zip(chains, rewards, x, predictions, strict=True):
                self.take(chain, reward, latent, prediction)
        return max(chain.child[0] for chain in chains if chain.child)

    def take(self, chain: Chain, reward: float, x: Tensor, prediction: Prediction) -> None:
        """Go down with a child that is the best so far, or with the best of a level whose quota is spent."""
        chain.draws += 1
        if chain.child is None or reward > chain.child[0]:
            chain.child = (reward, x, prediction)
        improved = reward > chain.best
        chain.best = max(chain.best, reward)
        down = improved or chain.draws == chain.quota
        if down and chain.level < self.problem.sampler.steps - 2:
            _, chain.x, chain.prediction = chain.child
            chain.quota = self.quota + (chain.quota - chain.draws if improved else 0)
            chain.level, chain.draws, chain.child = chain.level + 1, 0, None


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def measure(
    task: Task, params: dict[str, Any], options: argparse.Namespace
) -> list[tuple[float, float, float]]:
    """Seconds of our search, of its bare calls and of the authors' loop with as many chains, by turns."""
    method, nfe, clock = Method("rbf", params, {}), options.nfe, CLOCKS[options.clock]
    calls = calls_of(task, method, nfe)
    chains = params.get("chains", 2)
    problem = task.problem(nfe, 0, Sampler())
    return [
        (
            timed(lambda: run(task, method, nfe, 0), clock),
            timed(lambda: bare(task, calls), clock),
            timed(AuthorsLoop(problem, chains).search, clock),
        )
        for _ in range(options.repeats)
    ]


def check(task: Task, chains: int, nfe: int) -> None:
    """AssertionError unless the plain loop ends where mode "upstream" does, up to rounding."""
    loop = AuthorsLoop(task.problem(nfe, 0, Sampler()), chains)
    with torch.inference_mode():
        reward = loop.search()
    state = run(task, Method("rbf", {"mode": "upstream", "chains": chains}, {}), nfe, 0)
    if loop.spent != state.ledger.nfe_spent or abs(reward - state.best[0].reward) > 1e-4:
        raise AssertionError(
            f"{loop.spent} NFE to {reward}, upstream: {state.ledger.nfe_spent}, {state.best}"
        )


def row(name: str, times: list[tuple[float, float, float]]) -> list[str]:
    """Medians of the seconds and of their ratios."""
    columns = [*zip(*times, strict=True)]
    columns += [[ours / floor for ours, floor, _ in times], [theirs / ours for ours, _, theirs in times]]
    return [name, *(f"{statistics.median(column):.2f}" for column in columns)]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args(arguments)
    task = Task.of(PROMPT)
    check(task, 2, options.nfe)
    times = {}
    for name in options.settings:
        times[name] = measure(task, SETTINGS[name], options)
        print(row(name, times[name]), flush=True)
    header = ["search", "bare calls", "authors' loop", "search / bare", "authors' loop / search"]
    settings = vars(options) | {"threads": torch.get_num_threads()}
    first = f"{options.nfe} NFE, seconds ({options.clock} time, {torch.get_num_threads()} threads)"
    rows = [row(name, measured) for name, measured in times.items()]
    save("loops", {"settings": settings, "seconds": times}, table([first, *header], rows))


if __name__ == "__main__":
    main()
