"""Searches compared: tables of all cells that there are, docs/results/search.md."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks.cells import Cells, Result, listed
from benchmarks.crowd import PRECISIONS
from benchmarks.methods import (
    ABLATED,
    BASE_NFE,
    BUDGETS,
    CHOSEN_ON,
    DEFAULT_LINEAR,
    FRESH,
    GUIDED,
    KERNELS,
    LARGE_NAME,
    LEADING,
    MAIN,
    METHODS,
    RIVALLING,
    SETTINGS,
    SMALL_NAME,
    TABLE,
    WIDE_NAME,
    WIDTHS,
    named,
)
from benchmarks.setup import HELD_OUT
from benchmarks.tables import shown, table

OURS, AUTHORS_WAY = "rbf", "rbf, upstream"
GROUPS: Mapping[str, tuple[range, Sequence[str]]] = {
    "All strategies": (TABLE, [*MAIN]),
    "Those that lead, on prompts that no choice has seen": (FRESH, LEADING),
    "One idea out, or one in": (TABLE, [OURS, "rbf, upstream", *ABLATED]),
    "Paths and kernels": (TABLE, [OURS, LARGE_NAME, "svdd", "smc", *KERNELS, *DEFAULT_LINEAR]),
    "Settings, on the prompts they were chosen on": (
        CHOSEN_ON,
        [*RIVALLING, *SETTINGS, *WIDTHS],
    ),
    "Guidance by the reward's gradient": (TABLE, ["base", OURS, *GUIDED]),
}
"""By title, the prompts and the methods of a table."""
REWARDS = ("scene_match", "object_count")
LEAST = 8
"""Prompts that a table needs."""
PREFACE = """# search

Made by `python -m benchmarks.search` from benchmarks/results/search.csv; [search.md](../search.md) says what
is compared. Its cells, by precision and the digest of code and weights that made them: {cells}. Some of them
were last made again, and came out as they were, under: {checked}.
Mean ± standard error over prompts, all methods of a table on the same prompts and seeds, and in the same
precision where all have one in common; else each counts as the most precise that it was made in ("mixed").
What a precision changes stands at the end."""
Grouped = Mapping[tuple[str, int, str], Cells]
"""Cells by reward, budget and method."""
Key = tuple[int, int]
"""Prompt and seed: what cells of two methods are paired by."""
Found = dict[Key, dict[str, Result]]
"""One method's searches at one budget, by precision."""
Value = Callable[[Result], float]
VALUES: Mapping[str, Value] = {"given": lambda r: r.given, "held_out": lambda r: r.held_out}
Searches = tuple[str, int]
"""A method at a budget."""
PLAINEST, LOCAL = "best_of_n, 1 step", "local search at t = 1"
ALL = range(FRESH.stop)
OVER_LEADING = [((name, nfe), (OURS, nfe)) for nfe in BUDGETS for name in LEADING if name != OURS]
SMALL_OVER_LARGE = [((LARGE_NAME, nfe), (SMALL_NAME, nfe)) for nfe in BUDGETS]
WIDE_OVER_LARGE = [((LARGE_NAME, nfe), (WIDE_NAME, nfe)) for nfe in BUDGETS]
DIFFERENCES: Mapping[str, tuple[range, Sequence[tuple[Searches, Searches]]]] = {
    "Over one-step best-of-n": (
        TABLE,
        [
            ((PLAINEST, nfe), (method, nfe))
            for nfe in BUDGETS
            for method in MAIN
            if method not in ("base", PLAINEST)
        ],
    ),
    "The default over those that lead": (TABLE, OVER_LEADING),
    "The default over those that lead, on prompts that no choice has seen": (FRESH, OVER_LEADING),
    "The default over those that lead, on all prompts": (ALL, OVER_LEADING),
    "Another path or kernel": (
        TABLE,
        [((name.rpartition(", ")[0], nfe), (name, nfe)) for nfe in BUDGETS for name in KERNELS],
    ),
    "The default on the linear path": (
        TABLE,
        [((OURS, nfe), (name, nfe)) for name in DEFAULT_LINEAR for nfe in BUDGETS],
    ),
    "One idea out, or one in": (
        TABLE,
        [
            ((AUTHORS_WAY if name.startswith(AUTHORS_WAY) else OURS, nfe), (name, nfe))
            for name in ABLATED
            for nfe in BUDGETS
        ],
    ),
    "1 chain and 12 noises over the paper's 2 and 25": (TABLE, SMALL_OVER_LARGE),
    "1 chain and 12 noises over the paper's 2 and 25, on the prompts of the choice": (
        CHOSEN_ON,
        SMALL_OVER_LARGE,
    ),
    "1 chain and 12 noises over the paper's 2 and 25, on all prompts": (ALL, SMALL_OVER_LARGE),
    "Two starts out of 50 noises and the best of eight children, over the paper's 2 and 25": (
        TABLE,
        WIDE_OVER_LARGE,
    ),
    "Two starts out of 50 noises and the best of eight children, on the prompts of the choice": (
        CHOSEN_ON,
        WIDE_OVER_LARGE,
    ),
    "Two starts out of 50 noises and the best of eight children, on prompts that no choice has seen": (
        FRESH,
        WIDE_OVER_LARGE,
    ),
    "Four children at a time, the best taken, over one at a time": (
        TABLE,
        [((name, nfe), (f"{name}, width 4", nfe)) for name in (SMALL_NAME, LARGE_NAME) for nfe in BUDGETS],
    ),
    "Four children at a time, on the prompts of the choice": (
        CHOSEN_ON,
        [((name, nfe), (f"{name}, width 4", nfe)) for name in (SMALL_NAME, LARGE_NAME) for nfe in BUDGETS],
    ),
    "Local search that leaves its pivot when no neighbour wins, on the prompts of the choice": (
        CHOSEN_ON,
        [((LOCAL, nfe), (f"{LOCAL}, patience 1", nfe)) for nfe in BUDGETS],
    ),
    "Fewer NFE than best-of-n": (TABLE, [(("best_of_n, 10 steps", 500), (OURS, nfe)) for nfe in BUDGETS]),
    "More NFE": (
        TABLE,
        [
            ((method, few), (method, many))
            for few, many in pairwise(BUDGETS)
            for method in MAIN
            if method != "base"
        ],
    ),
}
"""By title, the prompts, and what is compared pair by pair, each with as many pairs as it has: from, to."""


@dataclass(frozen=True)
class Aligned:
    """Methods on the searches that all of them have, in the order of prompts.

    Args:
        results: by method.
        precisions: how many of the searches are compared in which; "mixed" where there is no common one.
    """

    results: dict[str, dict[Key, Result]]
    precisions: Counter[str]

    @property
    def told(self) -> str:
        """The precisions in words."""
        if len(self.precisions) == 1:
            return next(iter(self.precisions))
        return ", ".join(f"{count} {precision}" for precision, count in sorted(self.precisions.items()))


def grouped(done: Cells) -> Grouped:
    """See `Grouped`."""
    groups: dict[tuple[str, int, str], Cells] = {}
    for cell, result in done.items():
        groups.setdefault((cell.reward, cell.nfe, cell.method), {})[cell] = result
    return groups


def of(done: Grouped, reward: str, nfe: int, method: str, prompts: range = TABLE) -> Found:
    """One method's cells at one budget."""
    budget = BASE_NFE if METHODS[method].strategy == "base" else nfe
    found: Found = {}
    for cell, result in done.get((reward, budget, named(method, nfe)), {}).items():
        if cell.prompt in prompts:
            found.setdefault((cell.prompt, cell.seed), {})[cell.precision] = result
    return found


def aligned(found: Mapping[str, Found]) -> Aligned:
    """See `Aligned`; a search counts in the most precise that all have it in."""
    results: dict[str, dict[Key, Result]] = {name: {} for name in found}
    precisions: Counter[str] = Counter()
    for key in sorted(set.intersection(*map(set, found.values()))) if found else []:
        shared = [p for p in PRECISIONS if all(p in own[key] for own in found.values())]
        precisions[shared[0] if shared else "mixed"] += 1
        for name, own in found.items():
            results[name][key] = own[key][min(shared or own[key], key=PRECISIONS.index)]
    return Aligned(results, precisions)


def alone(found: Found) -> dict[Key, Result]:
    """One method's searches, each in the most precise that it was made in."""
    return aligned({OURS: found}).results[OURS]


def common(done: Grouped, reward: str, nfe: int, methods: Sequence[str], prompts: range = TABLE) -> Aligned:
    """The methods that have cells, aligned."""
    # The default is named once, not by its settings too.
    once = [name for name in methods if name == OURS or OURS not in methods or name != named(OURS, nfe)]
    return aligned({name: own for name in once if (own := of(done, reward, nfe, name, prompts))})


def column(results: Mapping[Key, Result], value: Value) -> list[float]:
    """Values by prompt, means over its seeds: prompts are independent, seeds of one are not."""
    by_prompt: dict[int, list[float]] = {}
    for (prompt, _), result in results.items():
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


def tables(done: Grouped) -> Iterable[str]:
    """Every table that there are enough prompts for, under its heading."""
    for title, (prompts, methods) in GROUPS.items():
        for reward in REWARDS:
            for nfe in BUDGETS:
                shared = common(done, reward, nfe, methods, prompts)
                keys = [*shared.results.get(OURS, {})]
                count = len({prompt for prompt, _ in keys})
                if count >= LEAST and len(shared.results) > 2:
                    size = f"{len(keys)} searches of {count} prompts each ({shared.told})"
                    told = compared(shared.results, reward)
                    yield f"## {title}: {reward}, {nfe} NFE, {size}\n\n{told}"
    for title, (prompts, pairs) in DIFFERENCES.items():
        for reward in REWARDS:
            if gains := differences(done, reward, pairs, prompts):
                yield f"## {title}: {reward}, differences by pairs\n\n{gains}"
    for reward in REWARDS:
        if told := precisions(done, reward):
            yield f"## Precision: {reward}\n\n{told}"


def differences(
    done: Grouped, reward: str, pairs: Sequence[tuple[Searches, Searches]], prompts: range = TABLE
) -> str:
    """A table: what the latter of two kinds of search has over the former, by pairs; empty without any."""
    lines: list[list[str]] = []
    for (method, nfe), (other, budget) in pairs:
        pair = {
            "from": of(done, reward, nfe, method, prompts),
            "to": of(done, reward, budget, other, prompts),
        }
        both = aligned(pair)
        columns = [[column(own, value) for own in both.results.values()] for value in VALUES.values()]
        gains = [[b - a for a, b in zip(*column, strict=True)] for column in columns]
        if len(gains[0]) >= LEAST:
            line = [f"{method}, {nfe} NFE", f"{other}, {budget} NFE", str(len(gains[0]))]
            lines.append([*line, str(both.precisions.total()), both.told, *map(shown, gains)])
    header = ["from", "to", "prompts", "searches", "precision", reward, f"{HELD_OUT} (held out)"]
    return table(header, lines) if lines else ""


def precisions(done: Grouped, reward: str) -> str:
    """A line for each precision: what it changes in searches that were made in float32 too."""
    lines = (precision_line(done, reward, precision) for precision in PRECISIONS[1:])
    return "\n\n".join(line for line in lines if line)


def precision_line(done: Grouped, reward: str, precision: str) -> str:
    """What one precision changes; empty where too few searches tell."""
    both: dict[int, list[tuple[Result, Result]]] = {}
    for (steering, _, _), own in done.items():
        for cell, other in own.items() if steering == reward else ():
            exact = replace(cell, precision="float32")
            if cell.precision == precision and exact in own:
                both.setdefault(cell.prompt, []).append((own[exact], other))
    if len(both) < LEAST:
        return ""
    gains = [
        shown([statistics.fmean(value(other) - value(full) for full, other in own) for own in both.values()])
        for value in VALUES.values()
    ]
    moved = [abs(other.given - full.given) for own in both.values() for full, other in own]
    turned = sum(other.held_out != full.held_out for own in both.values() for full, other in own)
    return (
        f"Over {len(moved)} searches of {len(both)} prompts in {precision} less in float32: {gains[0]} "
        f"given, {gains[1]} held out; median of the absolute change {statistics.median(moved):.4f}, largest "
        f"{max(moved):.2f}; {turned} verdicts differ."
    )


def told(checked: Mapping[str, str], done: Cells) -> str:
    """The page of all tables of cells, and under what they were last checked."""
    made = Counter((cell.precision, result.code) for cell, result in done.items())
    cells = ", ".join(f"{count} {precision} ({code})" for (precision, code), count in sorted(made.items()))
    return "\n\n".join([PREFACE.format(cells=cells, checked=listed(checked)), *tables(grouped(done))]) + "\n"
