"""Reward against strategy at one budget, on hard prompts of the bundled model, with paired differences.

python -m benchmarks.search --prompts 100 --seeds 2 --nfe 200 --processes 2
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.setup import HELD_OUT, Method, Task, picture, run
from benchmarks.tables import mean_and_error, save, shown, table
from models.shapes.world import hard_prompts

DDIM = {"kernel": "ddim"}
METHODS = {
    "base": Method("base", {}, {}),
    "best_of_n, 10 steps": Method("best_of_n", {}, {}),
    "best_of_n, 4 steps": Method("best_of_n", {"steps": 4}, {}),
    "best_of_n, 1 step": Method("best_of_n", {"steps": 1}, {}),
    "local search at t = 1": Method("zero_order", {"steps": 1, "finish_steps": 4}, {}),
    "zero_order": Method("zero_order", {"steps": 4}, {}),
    "sop": Method("sop", {}, {}),
    "smc": Method("smc", {}, {}),
    "code": Method("code", {}, {}),
    "svdd": Method("svdd", {}, {}),
    "evolution": Method("evolution", {}, {}),
    "rbf": Method("rbf", {}, {}),
    "rbf, upstream": Method("rbf", {"mode": "upstream"}, {}),
    "rbf, ddim kernel": Method("rbf", {}, DDIM),
}
VARIANTS = {
    "rbf, diffusion scale 1": Method("rbf", {}, {"diffusion_scale": 1.0}),
    "rbf, linear path": Method("rbf", {}, {"interpolant": "linear"}),
    "rbf, ddim, 4 chains": Method("rbf", {"chains": 4}, DDIM),
    "rbf, ddim, pool 50": Method("rbf", {"initial_noises": 50}, DDIM),
    "rbf, ddim, 4 chains from the top of 50": Method(
        "rbf", {"chains": 4, "initial_noises": 50, "start": "top"}, DDIM
    ),
    "rbf, ddim, no finish": Method("rbf", {"finish_steps": 0}, DDIM),
    "rbf, ddim, 5 levels": Method("rbf", {}, DDIM | {"steps": 5}),
    "svdd, ddim kernel": Method("svdd", {}, DDIM),
    "smc, ddim kernel": Method("smc", {}, DDIM),
    "code, ddim kernel": Method("code", {}, DDIM),
}
"""Compared only where they are named."""
OURS = "rbf"


def measure(job: tuple[str, int, int, Mapping[str, Method], str]) -> list[dict[str, Any]]:
    """Run every method on one prompt with one seed."""
    prompt, seed, nfe, methods, given = job
    task = Task.of(prompt, given)
    rows = []
    for name, method in methods.items():
        started = time.perf_counter()
        state = run(task, method, nfe, seed)
        seconds = time.perf_counter() - started
        best = state.best[0]
        rows.append(
            {
                "method": name,
                "prompt": prompt,
                "seed": seed,
                "given": best.reward,
                "held_out": task.held_out(picture(best)),
                "first": state.first_reward,
                "nfe": state.ledger.nfe_spent,
                "seconds": seconds,
            }
        )
    return rows


def _one_thread() -> None:
    torch.set_num_threads(1)


def collect(jobs: list[Any], processes: int) -> list[dict[str, Any]]:
    """Measure all jobs, one thread a process: two processes do more on two cores than one of two threads."""
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_one_thread) as pool:
        rows: list[dict[str, Any]] = []
        for done, part in enumerate(pool.map(measure, jobs), start=1):
            rows += part
            if done % 10 == 0:
                print(f"{done} of {len(jobs)}", flush=True)
    return rows


def column(rows: list[dict[str, Any]], method: str, key: str) -> list[float]:
    """One method's values by prompt, means over its seeds: prompts are independent, seeds of one are not.

    In the order of the prompts, so that two methods' columns are paired. The hard set repeats a few short
    prompts; each counts once.
    """
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            by_prompt.setdefault(row["prompt"], []).append(row[key])
    return [statistics.fmean(values) for values in by_prompt.values()]


def summary(rows: list[dict[str, Any]], methods: Sequence[str], given: str) -> str:
    """The table: means with standard errors over prompts, and what `rbf` has over each, by pairs."""
    lines = []
    for name in methods:
        cells = [name, f"{mean_and_error(column(rows, name, 'nfe'))[0]:.0f}"]
        for key in ("given", "held_out"):
            own, ours = column(rows, name, key), column(rows, OURS, key)
            gain = "" if name == OURS else shown([a - b for a, b in zip(ours, own, strict=True)])
            cells += [shown(own), gain]
        lines.append(cells)
    header = ["method", "NFE", given, "rbf over it", f"{HELD_OUT} (held out)", "rbf over it"]
    return table(header, lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100, help="how many of the hard set")
    parser.add_argument("--skip", type=int, default=0, help="how many to leave out before them")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--reward", default="scene_match")
    parser.add_argument("--methods", nargs="+", choices=METHODS | VARIANTS, default=list(METHODS))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default=None, help="of the result files; search_nfe200 for 200 NFE")
    options = parser.parse_args(arguments)
    methods = {name: (METHODS | VARIANTS)[name] for name in options.methods}
    jobs = [
        (prompt, seed, options.nfe, methods, options.reward)
        for prompt in hard_prompts(options.skip + options.prompts)[options.skip :]
        for seed in range(options.seeds)
    ]
    rows = collect(jobs, options.processes)
    text = summary(rows, options.methods, options.reward)
    settings = {key: value for key, value in vars(options).items() if key not in {"name", "processes"}}
    save(options.name or f"search_nfe{options.nfe}", {"settings": settings, "rows": rows}, text)


if __name__ == "__main__":
    main()
