"""What calibrated settings are worth on an undistilled model: `shapes-base` at equal NFE, by pairs.

python -m benchmarks.calibration --prompts 60 --nfe 100

It runs what the service runs: the settings of a submission, resolved with the model's defaults.
"""

import argparse
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.tables import save, shown, table
from contracts.resolution import accept
from contracts.search import AUTHORS
from models.shapes.world import hard_prompts
from workers.engine import Engine
from workers.settings import WorkerSettings

MODEL = "shapes-base"
FEW_STEP = {"grid": "quadratic", "kernel": "euler_maruyama"}
METHODS: Mapping[str, dict[str, Any]] = {
    "rbf, calibrated (default)": {},
    "rbf, settings of few-step models": {"search": {**AUTHORS}, "sampler": FEW_STEP},
    "svdd, settings of few-step models": {"search": {"strategy": "svdd"}, "sampler": FEW_STEP},
    "best_of_n, 10 steps": {"search": {"strategy": "best_of_n"}},
    "best_of_n, 4 steps": {"search": {"strategy": "best_of_n", "steps": 4}},
}
OURS = next(iter(METHODS))


@torch.inference_mode()
def measure(
    engine: Engine, prompt: str, seed: int, nfe: int, settings: Mapping[str, Any]
) -> tuple[float, float]:
    """The given and the held-out reward of one search."""
    posted = {"prompt": prompt, "model": MODEL, "budget": {"nfe": nfe}, "seed": seed, **settings}
    search = engine.open(accept(posted))
    *_, last = search.rounds()
    best = last.state.best[0]
    assert best.image is not None  # noqa: S101 -- a search in one process keeps the pictures of its best
    [[held_out]] = search.judge(best.image[None]).values()
    return best.reward, held_out


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=60, help="how many distinct ones of the hard set")
    parser.add_argument("--nfe", type=int, default=100)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(arguments)
    engine = Engine.load(MODEL, WorkerSettings(device="cpu"))
    prompts = list(dict.fromkeys(hard_prompts(2 * options.prompts)))[: options.prompts]
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in options.methods}
    for done, prompt in enumerate(prompts, start=1):
        for name, found in rows.items():
            # A seed for each prompt: two that share noises make errors over prompts too small.
            found.append(measure(engine, prompt, done, options.nfe, METHODS[name]))
        if done % 10 == 0:
            means = {
                name: round(statistics.fmean(given for given, _ in found), 3) for name, found in rows.items()
            }
            print(f"{done} of {len(prompts)}: {means}", flush=True)
    save("calibration", {"settings": vars(options), "prompts": prompts, "rows": rows}, summary(rows))


def summary(rows: Mapping[str, list[tuple[float, float]]]) -> str:
    """The table: means with standard errors over prompts, and what the default has over each, by pairs."""
    lines = [[name, *cells(rows, name)] for name in rows]
    header = ["method", "scene_match (given)", "default over it", "scene_exact (held out)", "default over it"]
    return table(header, lines)


def cells(rows: Mapping[str, list[tuple[float, float]]], name: str) -> list[str]:
    """Both rewards of a method, each with what the default has over it."""
    found: list[str] = []
    for own, ours in zip(zip(*rows[name], strict=True), zip(*rows[OURS], strict=True), strict=True):
        gain = "" if name == OURS else shown([a - b for a, b in zip(ours, own, strict=True)])
        found += [shown(list(own)), gain]
    return found


if __name__ == "__main__":
    main()
