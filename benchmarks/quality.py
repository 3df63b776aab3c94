"""How good a bundled model is: exact match by steps, and how much an early prediction tells of the end.

python -m benchmarks.quality --prompts 300
python -m benchmarks.quality --prompts 300 --model shapes-base
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.tables import mean_and_error, save, shown, table
from contracts.resolution import accept
from models.shapes.world import hard_prompts
from sampling.calibration import foresight, levels
from sampling.noise import AddressedNoise
from sampling.prediction import Velocity
from workers.engine import Engine, Search
from workers.settings import WorkerSettings

HELD_OUT = "scene_exact"
STEPS = (1, 2, 4, 10)


def solve(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """Euler's method from t = 1 to 0: latents [b, ...]."""
    for i in range(steps):
        x = x - velocity(x, torch.full((len(x),), 1 - i / steps)) / steps
    return x


def searches(engine: Engine, prompts: Sequence[str], seed: int) -> Iterator[Search]:
    """A search for each prompt, ready but not run; prompt i has seed + i."""
    for index, prompt in enumerate(prompts):
        yield engine.open(accept({"prompt": prompt, "model": engine.model, "seed": seed + index}))


def exact_match(engine: Engine, prompts: Sequence[str]) -> dict[int, list[float]]:
    """The judge's verdict for each prompt, by number of steps, from one noise a prompt."""
    verdicts: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for search in searches(engine, prompts, seed=0):
        problem = search.problem
        noise = AddressedNoise(problem.seed, problem.shape).draw(0, 0, 0)[None]
        for steps in STEPS:
            images = problem.score(solve(problem.velocity, noise, steps)).images
            if images is None:
                raise ValueError("the model's reward needs no picture: there is nothing to judge")
            verdicts[steps] += search.judge(images)[HELD_OUT]
    return verdicts


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="shapes", choices=["shapes", "shapes-base"])
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--noises", type=int, default=24)
    parser.add_argument("--foresight-prompts", type=int, default=40)
    options = parser.parse_args(arguments)
    engine = Engine.load(options.model, WorkerSettings(device="cpu"))
    with torch.inference_mode():
        verdicts = exact_match(engine, hard_prompts(options.prompts))
        told = levels(
            [
                foresight(search.problem, options.noises)
                for search in searches(engine, hard_prompts(options.foresight_prompts), seed=1000)
            ]
        )
    first = table(
        ["Euler steps", f"{HELD_OUT}, {options.prompts} hard prompts"],
        [[str(steps), shown(found)] for steps, found in verdicts.items()],
    )
    second = table(
        ["time", "correlation of the one-step reward with the final one, within a prompt"],
        [[f"{level.t:.1f}", level.shown] for level in told],
    )
    facts = {
        "settings": vars(options),
        "exact": {steps: mean_and_error(found) for steps, found in verdicts.items()},
        "foresight": {level.t: (level.correlation, level.error) for level in told},
    }
    suffix = "" if options.model == "shapes" else f"_{options.model}"
    save(f"quality{suffix}", facts, f"{first}\n\n{second}")


if __name__ == "__main__":
    main()
