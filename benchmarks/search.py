"""Reward against strategy and budget on hard prompts of the bundled model, in cells that add up over runs.

python -m benchmarks.search --minutes 60      # go on where the last run stopped, then write tables and plots
python -m benchmarks.search --minutes 0       # only write them
python -m benchmarks.search --minutes 10 --device cuda --together 64 --rows 1024
"""

import argparse
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

import torch

from benchmarks import cells, report
from benchmarks.cells import PRECISIONS, Cell, Cells, Result
from benchmarks.methods import BASE_NFE, METHODS, ORDER, Stage
from benchmarks.pictures import print_of
from benchmarks.setup import Task, picture, searched
from benchmarks.together import together
from models.shapes.world import hard_prompts
from sampling.state import State
from sampling.strategies import make_strategy

PROMPTS = 200
CHECKED = 5
"""Old cells of each method that are made again when the code has changed, and replaced: most must come out as
they were, or the method begins anew.

Not all: in bfloat16, or on another processor, rounding turns a close decision now and then."""

Made = list[tuple[Cell, Result]]


@dataclass(frozen=True)
class Device:
    """Where, and how much at once: searches side by side, rows in one call."""

    name: str
    together: int
    rows: int


@cache
def prompts() -> list[str]:
    """The hard set, which repeats a few short prompts: here each has one number."""
    return list(dict.fromkeys(hard_prompts(2 * PROMPTS)))[:PROMPTS]


@cache
def possible(method: str, nfe: int) -> bool:
    """Whether the budget pays for the method, and is not that of another row."""
    chosen = METHODS[method]
    if chosen.strategy == "base":
        return nfe == BASE_NFE
    return nfe != BASE_NFE and make_strategy(chosen.strategy, chosen.params).minimum_nfe(chosen.moves) <= nfe


def missing(
    stages: Sequence[Stage], done: Mapping[Cell, Result], precision: str = "float32"
) -> Iterator[list[Cell]]:
    """Cells to be made, in groups of one prompt and reward; each cell once."""
    asked: set[Cell] = set()
    for stage in stages:
        for reward in stage.rewards:
            for prompt in stage.prompts:
                group = [
                    cell
                    for cell in stage.cells(reward, prompt, precision)
                    if cell not in done and cell not in asked and possible(cell.method, cell.nfe)
                ]
                asked.update(group)
                if group:
                    yield group


def measure(group: Sequence[Cell], device: Device) -> Made:
    """Make cells of one prompt, reward and precision, side by side."""
    torch.set_num_threads(1)
    half = group[0].precision == "bfloat16"
    task = Task.of(prompts()[group[0].prompt], group[0].reward, device.name, half=half)
    methods = [METHODS[cell.method] for cell in group]
    problems = [task.problem(c.nfe, c.seed, m.moves) for c, m in zip(group, methods, strict=True)]
    chosen = {id(problem.sampler): method for problem, method in zip(problems, methods, strict=True)}
    states = together(problems, lambda p: searched(p, chosen[id(p.sampler)]), device.together, device.rows)
    pictures = torch.stack([picture(state.best[0]) for state in states]).cpu()
    return [
        (
            cell,
            Result(
                given=state.best[0].reward,
                held_out=task.held_out(image),
                spent=state.ledger.nfe_spent,
                picture=mark,
                draws=draws_of(state) if METHODS[cell.method].strategy == "rbf" else "",
                code=loaded(),
            ),
        )
        for cell, state, image, mark in zip(group, states, pictures, print_of(pictures), strict=True)
    ]


@cache
def loaded() -> str:
    """The digest of what this process runs: files that change later do not count."""
    return cells.digest()


def draws_of(state: State) -> str:
    """Evaluations at each level of the grid, in order; all chains together, a shared pool once."""
    counts: Counter[int] = Counter()
    for level in state.levels:
        counts[level.level] += level.draws
    counts[0] = state.ledger.nfe_spent - sum(n for level, n in counts.items() if level)
    return ".".join(str(counts[level]) for level in range(max(counts) + 1))


def make(groups: Iterator[list[Cell]], device: Device, processes: int, until: float) -> Iterator[Made]:
    """Make groups of cells, as many at once as there are processes, until they or the time are at an end."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running: set[Future[Made]] = set()
        while True:
            while len(running) < processes and time.monotonic() < until and (group := next(groups, None)):
                running.add(pool.submit(measure, group, device))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()


def still_true(old: Cells, remake: Callable[[Iterator[list[Cell]]], Iterator[Made]]) -> Cells:
    """The cells that still count: those whose method, by a few of them made again, comes to the same.

    Asked for when weights, rewards or the code of the search have changed since the last check. The few that
    are made again take the place of the old ones, whatever they came to.

    Args:
        old: all of them.
        remake: makes groups of cells anew.
    """
    old = {cell: result for cell, result in old.items() if cell.method in METHODS}
    stale = {cell for cell, result in old.items() if result.code != loaded()}
    few: dict[str, list[Cell]] = {}
    for cell in sorted(stale, key=lambda cell: (cell.nfe, cell.prompt)):
        few.setdefault(cell.method, []).append(cell)
    groups = ([cell] for own in few.values() for cell in own[:: math.ceil(len(own) / CHECKED)])
    remade = {cell: result for made in remake(groups) for cell, result in made}
    votes: Counter[str] = Counter()
    for cell, result in remade.items():
        same = abs(result.given - old[cell].given) < 0.01 and result.spent == old[cell].spent
        votes[cell.method] += 1 if same else -1
    changed = {method for method in few if votes[method] <= 0}
    print(f"checked {len(few)} methods; begun anew: {', '.join(sorted(changed)) or 'none'}", flush=True)
    kept = {cell: old[cell] for cell in old if cell not in stale or cell.method not in changed}
    return kept | remade


def stages_of(options: argparse.Namespace) -> Sequence[Stage]:
    """The usual order, or what was asked for."""
    if not options.methods:
        return ORDER
    prompts = range(options.prompts)
    return [
        Stage(options.rewards, options.nfe, options.methods, prompts, draw) for draw in range(options.seeds)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="what is under way then is finished")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--half", action="store_true", help="multiply in bfloat16: faster where the device can"
    )
    parser.add_argument("--together", type=int, default=64, help="searches side by side in a process")
    parser.add_argument("--rows", type=int, default=24, help="the most in one call")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="in place of the usual order")
    parser.add_argument(
        "--rewards", nargs="+", default=["scene_match"], help="with --methods, as are those below"
    )
    parser.add_argument("--nfe", type=int, nargs="+", default=[100])
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    device = Device(options.device, options.together, options.rows)
    until = time.monotonic() + 60 * options.minutes
    checked_under, done = cells.read()
    if options.minutes and checked_under != cells.digest():
        done = still_true(done, lambda groups: make(groups, device, options.processes, math.inf))
    if options.minutes:
        cells.write(done)
        asked = missing(stages_of(options), done, PRECISIONS[options.half])
        for made in make(asked, device, options.processes, until):
            cells.append(made)
            done.update(made)
            print(f"{len(done)} cells; prompt {made[0][0].prompt}, {len(made)} new", flush=True)
        cells.write(cells.read()[1])
    elif checked_under != cells.digest():
        print("the code has changed since the cells were checked; --minutes 1 checks them", flush=True)
    report.write(*cells.read())


if __name__ == "__main__":
    main()
