"""Plots of all cells that there are: docs/images/search_*.png."""

import statistics
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.cells import Result
from benchmarks.methods import BUDGETS, METHODS, named
from benchmarks.pictures import distance
from benchmarks.report import LEAST, OURS, REWARDS, VALUES, Grouped, Key, alone, column, common, of
from benchmarks.setup import HELD_OUT
from benchmarks.tables import TABLES, mean_and_error

IMAGES = TABLES.parent / "images"
LINES = {
    "rbf": "C3",
    "rbf, upstream": "C1",
    "svdd": "C0",
    "svdd, 1 chain": "C9",
    "evolution": "C4",
    "local search at t = 1": "C2",
    "best_of_n, 1 step": "C7",
    "best_of_n, 10 steps": "k",
}


def write(done: Grouped) -> None:
    """Write them all."""
    IMAGES.mkdir(exist_ok=True)
    plot_budgets(done, IMAGES / "search_budget.png")
    plot_levels(done, IMAGES / "search_levels.png")
    plot_diversity(done, IMAGES / "search_diversity.png")


def axes(count: int) -> tuple[Any, Any]:
    """A figure of panels side by side."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- a worker process of the benchmark needs none

    figure = Figure(figsize=(4.4 * count, 3.6), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def plot_budgets(done: Grouped, path: Path) -> None:
    """Reward against NFE with bands of one standard error; at each budget on the cells that all share."""
    figure, panels = axes(2)
    for panel, (title, value) in zip(panels, VALUES.items(), strict=True):
        for name, colour in LINES.items():
            points = []
            for nfe in BUDGETS:
                own = column(common(done, REWARDS[0], nfe, [*LINES]).results.get(name, {}), value)
                if len(own) >= LEAST:
                    points.append((nfe, *mean_and_error(own)))
            if points:
                nfe, mean, error = zip(*points, strict=True)
                panel.plot(nfe, mean, marker="o", markersize=3, color=colour, label=name)
                low, high = ([m + side * e for m, e in zip(mean, error, strict=True)] for side in (-1, 1))
                panel.fill_between(nfe, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set(
            title=f"{REWARDS[0]} (given)" if title == "given" else f"{HELD_OUT} (held out)",
            xscale="log",
            xlabel="NFE",
            xticks=BUDGETS,
            xticklabels=[str(nfe) for nfe in BUDGETS],
        )
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("mean over prompts")
    panels[1].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)


def plot_levels(done: Grouped, path: Path) -> None:
    """Share of the budget that each level of the grid gets, under rbf and under upstream."""
    figure, panels = axes(2)
    for panel, method in zip(panels, (OURS, "rbf, upstream"), strict=True):
        for nfe in BUDGETS:
            own = alone(of(done, REWARDS[0], nfe, method))
            rows = [
                [int(draws) / own[key].spent for draws in own[key].draws.split(".")]
                for key in own
                if own[key].draws
            ]
            if len(rows) >= LEAST:
                shares = [statistics.fmean(level) for level in zip(*rows, strict=True)]
                colour = f"C{BUDGETS.index(nfe)}"
                panel.plot(
                    range(len(shares)), shares, marker="o", markersize=3, color=colour, label=f"{nfe} NFE"
                )
        panel.set(title=method, xlabel="level (0: the initial pool; 10: the finish)", xticks=range(11))
        panel.grid(alpha=0.25)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("share of the NFE")
    figure.savefig(path, dpi=110)


def spread(results: Mapping[Key, Result]) -> list[float]:
    """By prompt, the mean distance of the pictures of two seeds."""
    prints: dict[int, list[str]] = {}
    for (prompt, _), result in results.items():
        if result.picture:
            prints.setdefault(prompt, []).append(result.picture)
    distances = {prompt: [distance(*pair) for pair in combinations(own, 2)] for prompt, own in prints.items()}
    return [statistics.fmean(own) for own in distances.values() if own]


def plot_diversity(done: Grouped, path: Path) -> None:
    """How far apart the pictures of two seeds are, at 100 NFE."""
    figure, [panel] = axes(1)
    names = [name for name in METHODS if name != named(OURS, 100)]
    spreads = {name: spread(alone(of(done, REWARDS[0], 100, name))) for name in names}
    bars = {name: mean_and_error(own) for name, own in spreads.items() if len(own) >= LEAST}
    for name, (mean, error) in bars.items():
        panel.barh(name, mean, xerr=error, color="C3" if name == OURS else "C7")
    panel.set(xlabel="distance (100 NFE)", xlim=(0, None))
    panel.invert_yaxis()
    figure.savefig(path, dpi=110)
