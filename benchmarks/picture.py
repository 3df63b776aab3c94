"""The README's picture: before, after, and the reward of every candidate on the way.

python -m benchmarks.picture --prompt "..." --nfe 200 --seed 0 --out docs/images/demo.png
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.setup import HELD_OUT, Method, Task, picture, run
from sampling.events import Candidate, Decision
from sampling.sampler import Sampler
from sampling.search import search
from sampling.strategies import make_strategy

COLOURS = {
    Decision.INITIAL: "0.6",
    Decision.REJECTED: "0.8",
    Decision.UNUSED: "0.9",
    Decision.LEVEL_BEST: "tab:blue",
    Decision.IMPROVED: "tab:red",
}


def show(axes: Axes, image: Tensor, title: str) -> None:
    """A picture [3, h, w], every pixel to be seen."""
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def plot(axes: Axes, candidates: list[Candidate]) -> None:
    """Reward against NFE, by decision, and the best so far."""
    for decision, colour in COLOURS.items():
        own = [c for c in candidates if c.decision is decision]
        axes.scatter([c.nfe for c in own], [c.reward for c in own], s=9, color=colour, label=decision.value)
    nfe = [c.nfe for c in candidates]
    axes.step(
        nfe,
        np.maximum.accumulate([c.reward for c in candidates]),
        where="post",
        color="black",
        lw=1,
        label="best",
    )
    axes.set_xlabel("NFE")
    axes.set_ylabel("reward (scene_match)")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", default="two green circles, a blue circle and three purple squares")
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.png"))
    options = parser.parse_args()
    task = Task.of(options.prompt)
    with torch.inference_mode():
        before = run(task, Method("base", {}, {}), options.nfe, options.seed).best[0]
        strategy = make_strategy("rbf", Method("rbf", {}, {}).at(options.nfe))
        rounds = list(search(task.problem(options.nfe, options.seed, Sampler()), strategy))
        after = rounds[-1].state.best[0]
        verdicts = [task.held_out(picture(c)) for c in (before, after)]
    mpl.use("Agg")
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(10, 3), width_ratios=(1, 1, 1.5), layout="constrained"
    )
    show(
        left,
        picture(before),
        f"one sample, 10 steps\nreward {before.reward:.2f}, {HELD_OUT} {verdicts[0]:.0f}",
    )
    show(
        middle,
        picture(after),
        f"searched, {options.nfe} NFE\nreward {after.reward:.2f}, {HELD_OUT} {verdicts[1]:.0f}",
    )
    plot(right, [c for r in rounds for c in r.candidates])
    figure.suptitle(f"“{options.prompt}”", fontsize=11)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=130)
    print(options.out)


if __name__ == "__main__":
    main()
