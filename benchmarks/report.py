"""Tables and plots of all cells that there are: docs/results/search.md and docs/images/search_*.png."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from benchmarks.cells import Cells, Result
from benchmarks.methods import BASE_NFE, GUIDED, IDEAS, KERNELS, MAIN, METHODS
from benchmarks.pictures import distance
from benchmarks.setup import HELD_OUT
from benchmarks.tables import TABLES, mean_and_error, shown, table

OURS = "rbf"
PLAIN = ("base", "best_of_n, 10 steps", "best_of_n, 4 steps", "best_of_n, 1 step", "rbf, upstream", OURS)
GROUPS: Mapping[str, Sequence[str]] = {
    "All strategies": [*MAIN],
    "The simple ones, on all their cells": PLAIN,
    "Paths and kernels": [OURS, "svdd", "smc", *KERNELS],
    "Settings of rbf": [OURS, "rbf, upstream", *IDEAS],
    "Guidance by the reward's gradient": ["base", OURS, *GUIDED],
}
BUDGETS = (50, 100, 200, 500)
REWARDS = ("scene_match", "object_count")
LEAST = 8
"""Prompts that a table needs."""
PREFACE = """# search

Made by `python -m benchmarks.search` from benchmarks/results/search.csv, whose {cells} cells were
last checked under code and weights of digest {checked}; [search.md](../search.md) says what is compared.
Mean ± standard error over prompts, all methods of a table on the same prompts, seeds and precision.
Prompts share their noises where seeds are 0 and 1, so the errors of means are too small there, and those of
differences hold for these noises."""
IMAGES = TABLES.parent / "images"
LINES = {
    "rbf": "C3",
    "rbf, upstream": "C1",
    "svdd": "C0",
    "evolution": "C4",
    "local search at t = 1": "C2",
    "best_of_n, 1 step": "C7",
    "best_of_n, 10 steps": "k",
}

Key = tuple[int, int, str]
"""Prompt, seed and precision: what cells of two methods are paired by."""
Value = Callable[[Result], float]
VALUES: Mapping[str, Value] = {"given": lambda r: r.given, "held_out": lambda r: r.held_out}
Searches = tuple[str, int]
"""A method at a budget."""
PLAINEST = "best_of_n, 1 step"
DIFFERENCES: Mapping[str, Sequence[tuple[Searches, Searches]]] = {
    "Over one-step best-of-n": [
        ((PLAINEST, nfe), (method, nfe))
        for nfe in BUDGETS
        for method in MAIN
        if method not in ("base", PLAINEST)
    ],
    "Another path or kernel": [
        ((name.partition(", ")[0], nfe), (name, nfe)) for nfe in BUDGETS for name in KERNELS
    ],
    "More NFE": [
        ((method, few), (method, many))
        for few, many in pairwise(BUDGETS)
        for method in MAIN
        if method != "base"
    ],
}
"""What is compared pair by pair, each with as many pairs as it has: from, to."""


def of(done: Cells, reward: str, nfe: int, method: str) -> dict[Key, Result]:
    """One method's cells at one budget."""
    budget = BASE_NFE if METHODS[method].strategy == "base" else nfe
    wanted = (reward, budget, method)
    return {
        (c.prompt, c.seed, c.precision): r for c, r in done.items() if (c.reward, c.nfe, c.method) == wanted
    }


def once(keys: Iterable[Key]) -> list[Key]:
    """In order, each prompt and seed once: in float32 where it is there."""
    return sorted({key[:2]: key for key in sorted(keys)}.values())


def common(done: Cells, reward: str, nfe: int, methods: Sequence[str]) -> dict[str, dict[Key, Result]]:
    """The methods that have cells, each with those that all of them have, in the order of prompts."""
    found = {name: own for name in methods if (own := of(done, reward, nfe, name))}
    shared = once(set.intersection(*map(set, found.values()))) if found else []
    return {name: {key: own[key] for key in shared} for name, own in found.items()}


def column(results: Mapping[Key, Result], value: Value) -> list[float]:
    """Values by prompt, means over its seeds: prompts are independent, seeds of one are not."""
    by_prompt: dict[int, list[float]] = {}
    for (prompt, *_), result in results.items():
        by_prompt.setdefault(prompt, []).append(value(result))
    return [statistics.fmean(values) for values in by_prompt.values()]


def compared(results: Mapping[str, Mapping[Key, Result]], reward: str) -> str:
    """A table: means with standard errors over prompts, and what `rbf` has over each, by pairs."""
    lines = []
    for name, own in results.items():
        line = [name, f"{statistics.fmean(result.spent for result in own.values()):.0f}"]
        for value in VALUES.values():
            mine, ours = column(own, value), column(results[OURS], value)
            gain = "" if name == OURS else shown([a - b for a, b in zip(ours, mine, strict=True)])
            line += [shown(mine), gain]
        lines.append(line)
    lines.sort(key=lambda line: line[2])
    header = ["method", "NFE spent", reward, "rbf over it", f"{HELD_OUT} (held out)", "rbf over it"]
    return table(header, lines)


def tables(done: Cells) -> Iterable[str]:
    """Every table that there are enough prompts for, under its heading."""
    for title, methods in GROUPS.items():
        for reward in REWARDS:
            for nfe in BUDGETS:
                results = common(done, reward, nfe, methods)
                keys = [*results.get(OURS, {})]
                prompts = len({prompt for prompt, *_ in keys})
                if prompts >= LEAST and len(results) > 1:
                    half = sum(precision == "bfloat16" for *_, precision in keys)
                    seeds = f"{len(keys)} searches of {prompts} prompts each, {half} in bfloat16"
                    yield f"## {title}: {reward}, {nfe} NFE, {seeds}\n\n{compared(results, reward)}"
    for title, pairs in DIFFERENCES.items():
        for reward in REWARDS:
            if gains := differences(done, reward, pairs):
                yield f"## {title}: {reward}, differences by pairs\n\n{gains}"
    for reward in REWARDS:
        if told := precisions(done, reward):
            yield f"## Precision: {reward}\n\n{told}"


def differences(done: Cells, reward: str, pairs: Sequence[tuple[Searches, Searches]]) -> str:
    """A table: what the latter of two kinds of search has over the former, by pairs; empty without any."""
    lines: list[list[str]] = []
    for (method, nfe), (other, budget) in pairs:
        one, two = of(done, reward, nfe, method), of(done, reward, budget, other)
        keys = once(one.keys() & two.keys())
        if len({prompt for prompt, *_ in keys}) < LEAST:
            continue
        line = [f"{method}, {nfe} NFE", f"{other}, {budget} NFE"]
        columns = [
            [column({key: own[key] for key in keys}, value) for own in (one, two)]
            for value in VALUES.values()
        ]
        gains = [[b - a for a, b in zip(*column, strict=True)] for column in columns]
        lines.append([*line, str(len(gains[0])), *map(shown, gains)])
    return table(["from", "to", "prompts", reward, f"{HELD_OUT} (held out)"], lines) if lines else ""


def precisions(done: Cells, reward: str) -> str:
    """A sentence: what bfloat16 changes in searches that were made in both; empty without any."""
    both: dict[int, list[tuple[Result, Result]]] = {}
    for cell, half in done.items():
        other = replace(cell, precision="float32")
        if (cell.reward, cell.precision) == (reward, "bfloat16") and other in done:
            both.setdefault(cell.prompt, []).append((done[other], half))
    if len(both) < LEAST:
        return ""
    gains = [
        shown([statistics.fmean(value(half) - value(full) for full, half in own) for own in both.values()])
        for value in VALUES.values()
    ]
    moved = [abs(half.given - full.given) for own in both.values() for full, half in own]
    turned = sum(half.held_out != full.held_out for own in both.values() for full, half in own)
    return (
        f"Over {len(moved)} searches of {len(both)} prompts in bfloat16 less in float32: {gains[0]} given, "
        f"{gains[1]} held out; median of the absolute change {statistics.median(moved):.4f}, largest "
        f"{max(moved):.2f}; {turned} verdicts differ."
    )


def write(checked: str, done: Cells) -> None:
    """Write tables and plots of cells that were last checked under a digest."""
    TABLES.mkdir(exist_ok=True)
    text = "\n\n".join([PREFACE.format(cells=len(done), checked=checked), *tables(done)])
    (TABLES / "search.md").write_text(text + "\n", encoding="utf-8")
    IMAGES.mkdir(exist_ok=True)
    plot_budgets(done, IMAGES / "search_budget.png")
    plot_levels(done, IMAGES / "search_levels.png")
    plot_diversity(done, IMAGES / "search_diversity.png")


def axes(count: int) -> tuple[Any, Any]:
    """A figure of panels side by side."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- a worker process of the benchmark needs none

    figure = Figure(figsize=(4.4 * count, 3.6), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def plot_budgets(done: Cells, path: Path) -> None:
    """Reward against NFE with bands of one standard error; at each budget on the cells that all share."""
    figure, panels = axes(2)
    for panel, (title, value) in zip(panels, VALUES.items(), strict=True):
        for name, colour in LINES.items():
            points = []
            for nfe in BUDGETS:
                own = column(common(done, REWARDS[0], nfe, [*LINES]).get(name, {}), value)
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


def plot_levels(done: Cells, path: Path) -> None:
    """Share of the budget that each level of the grid gets, under rbf and under upstream."""
    figure, panels = axes(2)
    for panel, method in zip(panels, (OURS, "rbf, upstream"), strict=True):
        for nfe in BUDGETS:
            own = of(done, REWARDS[0], nfe, method)
            rows = [
                [int(draws) / own[key].spent for draws in own[key].draws.split(".")]
                for key in once(own)
                if own[key].draws
            ]
            if len(rows) >= LEAST:
                shares = [statistics.fmean(level) for level in zip(*rows, strict=True)]
                panel.plot(range(len(shares)), shares, marker="o", markersize=3, label=f"{nfe} NFE")
        panel.set(title=method, xlabel="level (0: the initial pool; 10: the finish)", xticks=range(11))
        panel.grid(alpha=0.25)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("share of the NFE")
    figure.savefig(path, dpi=110)


def spread(results: Mapping[Key, Result]) -> list[float]:
    """By prompt, the mean distance of the pictures of two seeds in the same precision."""
    prints: dict[tuple[int, str], list[str]] = {}
    for (prompt, _, precision), result in results.items():
        if result.picture:
            prints.setdefault((prompt, precision), []).append(result.picture)
    distances: dict[int, list[float]] = {}
    for (prompt, _), own in prints.items():
        distances.setdefault(prompt, []).extend(distance(*pair) for pair in combinations(own, 2))
    return [statistics.fmean(own) for own in distances.values() if own]


def plot_diversity(done: Cells, path: Path) -> None:
    """How far apart the pictures of two seeds are, at 100 NFE."""
    figure, [panel] = axes(1)
    spreads = {name: spread(of(done, REWARDS[0], 100, name)) for name in METHODS}
    bars = {name: mean_and_error(own) for name, own in spreads.items() if len(own) >= LEAST}
    for name, (mean, error) in bars.items():
        panel.barh(name, mean, xerr=error, color="C3" if name == OURS else "C7")
    panel.set(xlabel="distance between two seeds, 100 NFE", xlim=(0, None))
    panel.invert_yaxis()
    figure.savefig(path, dpi=110)
