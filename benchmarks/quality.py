"""How good the bundled model is: exact match by steps, and how much an early prediction tells of the end.

python -m benchmarks.quality --prompts 300
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from benchmarks.setup import HELD_OUT, Task
from benchmarks.tables import save, table
from models.shapes.world import hard_prompts
from sampling.noise import AddressedNoise

STEPS = (1, 2, 4, 10)
TIMES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def solve(task: Task, x: Tensor, steps: int) -> Tensor:
    """Euler's method from t = 1 to 0: latents [b, ...]."""
    for i in range(steps):
        x = x - task.session.velocity(x, torch.full((len(x),), 1 - i / steps)) / steps
    return x


def exact_match(prompts: list[str]) -> dict[int, list[float]]:
    """The judge's verdict for each prompt, by number of steps, from one noise a prompt."""
    verdicts: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for index, prompt in enumerate(prompts):
        task = Task.of(prompt)
        noise = AddressedNoise(index, task.session.latent_shape).draw(0, 0, 0)[None]
        for steps in STEPS:
            image = task.session.decode(solve(task, noise, steps))[0]
            verdicts[steps].append(task.held_out(image))
    return verdicts


def foresight(prompts: list[str], noises: int) -> dict[float, list[float]]:
    """Within-prompt correlation of the reward of the one-step prediction at time t with the final one.

    A prompt whose rewards are all alike at either end has no correlation and is left out.
    """
    found: dict[float, list[float]] = {t: [] for t in TIMES}
    for index, prompt in enumerate(prompts):
        task = Task.of(prompt)
        source = AddressedNoise(1000 + index, task.session.latent_shape)
        x = torch.stack([source.draw(chain, 0, 0) for chain in range(noises)])
        early: dict[float, list[float]] = {}
        for i in range(10):
            t = 1 - i / 10
            velocity = task.session.velocity(x, torch.full((noises,), t))
            nearest = min(TIMES, key=lambda time: abs(time - t))
            if abs(nearest - t) < 1e-6:
                early[nearest] = task.score(x - t * velocity).rewards
            x = x - velocity / 10
        final = task.score(x).rewards
        for t, rewards in early.items():
            if np.std(rewards) > 1e-6 and np.std(final) > 1e-6:
                found[t].append(float(np.corrcoef(rewards, final)[0, 1]))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--noises", type=int, default=24)
    parser.add_argument("--foresight-prompts", type=int, default=40)
    options = parser.parse_args(arguments)
    with torch.inference_mode():
        verdicts = exact_match(hard_prompts(options.prompts))
        told = foresight(hard_prompts(options.foresight_prompts), options.noises)
    rates = {
        steps: (float(np.mean(v)), float(np.std(v, ddof=1) / len(v) ** 0.5)) for steps, v in verdicts.items()
    }
    correlations = {t: (float(np.mean(v)), float(np.std(v, ddof=1) / len(v) ** 0.5)) for t, v in told.items()}
    first = table(
        ["Euler steps", f"{HELD_OUT}, {options.prompts} hard prompts"],
        [[str(steps), f"{mean:.3f} ± {error:.3f}"] for steps, (mean, error) in rates.items()],
    )
    second = table(
        ["time", "correlation of the one-step reward with the final one, within a prompt"],
        [[str(t), f"{mean:.2f} ± {error:.2f}"] for t, (mean, error) in correlations.items()],
    )
    save(
        "quality",
        {"settings": vars(options), "exact": rates, "foresight": correlations},
        f"{first}\n\n{second}",
    )


if __name__ == "__main__":
    main()
