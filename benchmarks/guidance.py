"""What the reward's gradient adds to a search at equal NFE, by pairs with the same without, and its cost.

python -m benchmarks.guidance --prompts 24 --nfe 100
"""

import argparse
import os
import statistics
from typing import Any

from benchmarks.search import collect, column
from benchmarks.setup import HELD_OUT, Method
from benchmarks.tables import save, shown, table
from models.shapes.world import hard_prompts
from sampling.strategies import STRATEGIES


def name_of(strategy: str, strength: float) -> str:
    """What rows and table call it."""
    return f"{strategy}, {strength:g}" if strength else strategy


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table: means with standard errors over prompts, what guidance adds by pairs, a search's seconds."""
    lines = []
    for strategy in options.strategies:
        for strength in (0.0, *options.strengths):
            name = name_of(strategy, strength)
            cells = [name]
            for key in ("given", "held_out"):
                own, without = column(rows, name, key), column(rows, strategy, key)
                gain = shown([a - b for a, b in zip(own, without, strict=True)]) if strength else ""
                cells += [shown(own), gain]
            lines.append([*cells, f"{statistics.median(column(rows, name, 'seconds')):.2f}"])
    header = [
        "method, strength",
        options.reward,
        "over none",
        f"{HELD_OUT} (held out)",
        "over none",
        "seconds",
    ]
    return table(header, lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24, help="how many of the hard set")
    parser.add_argument("--skip", type=int, default=150, help="how many to leave out before them")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--nfe", type=int, default=100)
    parser.add_argument("--reward", default="scene_match")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["base", "rbf"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[30.0, 100.0])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--name", default="guidance", help="of the result files")
    options = parser.parse_args(arguments)
    methods = {
        name_of(strategy, strength): Method(strategy, {}, {"reward_guidance": strength})
        for strategy in options.strategies
        for strength in (0.0, *options.strengths)
    }
    jobs = [
        (prompt, seed, options.nfe, methods, options.reward)
        for prompt in hard_prompts(options.skip + options.prompts)[options.skip :]
        for seed in range(options.seeds)
    ]
    rows = collect(jobs, options.processes)
    settings = {key: value for key, value in vars(options).items() if key not in {"name", "processes"}}
    save(options.name, {"settings": settings, "rows": rows}, summary(rows, options))


if __name__ == "__main__":
    main()
