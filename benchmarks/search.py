"""Reward against strategy and budget on hard prompts of the bundled model, in cells that add up over runs.

python -m benchmarks.search --minutes 60      # go on where the last run stopped, then write tables and plots
python -m benchmarks.search --minutes 0       # only write them
python -m benchmarks.search --minutes 8 --device cuda --precision tf32 --rows 2048 --most 512
"""

import argparse
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

import torch

from benchmarks import cells, page, plots, report
from benchmarks.cells import Cell, Cells, Result
from benchmarks.crowd import PRECISIONS, Crowd
from benchmarks.methods import BASE_NFE, FRESH, METHODS, ORDER, TABLE, Stage
from benchmarks.pictures import print_of
from benchmarks.recall import Recall
from benchmarks.setup import picture
from benchmarks.tables import TABLES
from benchmarks.together import Ask, together
from models.shapes.captions import captions
from sampling.state import State

POLL = 1.0
"""Seconds after which a process that waits looks whether those it waits for still live."""
CHECKED = 5
"""Old cells of each method that are made again when the code has changed, and replaced: most must come out as
they were, or the method begins anew.

Not all: in another precision, or on another processor, rounding turns a close decision now and then."""
BLOCK = 4
"""Prompts whose cells are made before those of further ones: few, as `Recall` keeps what they share."""
KEPT = {"velocity": 60_000, "look": 40_000}
"""Rows of which the networks' answers are kept, by the kind of call: 3 GB, most of it pictures."""

Made = tuple[Cell, Result]


@dataclass(frozen=True)
class Device:
    """Where, and how much at once.

    Args:
        name: of the device.
        rows: of a call, about.
        most: searches under way in a process.
        processes: each with networks of its own, and one thread on the CPU.
    """

    name: str = "cpu"
    rows: int = 24
    most: int = 64
    processes: int = 1


def prompts() -> list[str]:
    """All that cells are of, by number."""
    return captions(range(FRESH.stop))


@cache
def possible(method: str, nfe: int) -> bool:
    """Whether the budget pays for the method, and is not that of another row."""
    chosen = METHODS[method]
    if chosen.strategy == "base":
        return nfe == BASE_NFE
    return nfe != BASE_NFE and chosen.made(nfe).minimum_nfe(chosen.moves) <= nfe


def missing(
    stages: Sequence[Stage], done: Mapping[Cell, Result], precision: str = "float32"
) -> Iterator[Cell]:
    """Cells to be made, each once: by stages, in these by blocks of prompts, and in these the longest first.

    A long search makes many calls of few rows, and short ones fill the batches: so no batch at the end is
    nearly empty. A cell that is there in another precision is not made.
    """
    asked = {replace(cell, precision=precision) for cell in done}
    for stage in stages:
        for first in range(0, len(stage.prompts), BLOCK):
            block = [
                cell
                for prompt in stage.prompts[first : first + BLOCK]
                for reward in stage.rewards
                for cell in stage.cells(reward, prompt, precision)
                if cell not in asked and possible(cell.method, cell.nfe)
            ]
            asked.update(block)
            yield from sorted(block, key=lambda cell: (-cell.nfe, METHODS[cell.method].strategy != "rbf"))


def measure(crowd: Crowd, cell: Cell, ask: Ask) -> Made:
    """Make one cell."""
    method = METHODS[cell.method]
    state = crowd.search(ask, cell.prompt, cell.reward, method, cell.nfe, cell.seed)
    image = picture(state.best[0]).cpu()
    result = Result(
        given=state.best[0].reward,
        held_out=crowd.held_out(image, cell.prompt),
        spent=state.ledger.nfe_spent,
        picture=print_of(image[None])[0],
        draws=draws_of(state) if method.walks_by_rbf else "",
        code=loaded(),
    )
    return cell, result


def measured(asked: Iterable[Cell], device: Device) -> Iterator[Made]:
    """Make cells of one precision in this process, as they end."""
    torch.set_num_threads(1)
    todo = iter(asked)
    if (first := next(todo, None)) is None:
        return
    crowd = Crowd(prompts(), device.name, first.precision)
    recalled = {kind: Recall(crowd.serve[kind], keep) for kind, keep in KEPT.items()}
    searches = (partial(measure, crowd, cell) for each in ([first], todo) for cell in each)
    yield from together(searches, crowd.serve | recalled, device.rows, device.most)


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


def work(todo: "Queue[Cell | None]", device: Device, until: float, made: "Queue[Made | None]") -> None:
    """Make the cells of a queue, until it or the time is at an end."""

    def mine() -> Iterator[Cell]:
        while time.time() < until and (cell := next_of(todo)):
            yield cell

    for one in measured(mine(), device):
        made.put(one)
    made.put(None)


def next_of(todo: "Queue[Cell | None]") -> Cell | None:
    """The next cell; None at the end, and in a process whose parent is gone."""
    parent = parent_process()
    while parent is None or parent.is_alive():
        with suppress(Empty):
            return todo.get(timeout=POLL)
    return None


def make(asked: Sequence[Cell], device: Device, until: float = math.inf) -> Iterator[Made]:
    """Make cells in several processes, as they end; what is under way when the time is over is finished.

    Those of one prompt and seed are made in one process, which knows what they share.

    Args:
        asked: all of one precision.
        device: where, and in how many processes.
        until: by time.time().

    Raises:
        RuntimeError: a process ended before its work did.
    """
    context = get_context("spawn")
    made = context.Queue()
    starts = {each: number for number, each in enumerate(dict.fromkeys(map(start_of, asked)))}
    queues: list[Queue[Cell | None]] = [context.Queue() for _ in range(min(device.processes, len(starts)))]
    for cell in asked:
        queues[starts[start_of(cell)] % len(queues)].put(cell)
    for todo in queues:
        todo.cancel_join_thread()  # what is left when the time is over is nobody's
        todo.put(None)
    started = [context.Process(target=work, args=(todo, device, until, made), daemon=True) for todo in queues]
    for process in started:
        process.start()
    left = len(started)
    while left:
        try:
            one = made.get(timeout=POLL)
        except Empty:
            refuse_failed(started)
            continue
        if one is None:
            left -= 1
        else:
            yield one
    for process in started:
        process.join()


def start_of(cell: Cell) -> tuple[int, int]:
    """What cells that begin alike have in common."""
    return cell.prompt, cell.seed


def refuse_failed(started: Sequence[BaseProcess]) -> None:
    """End all processes where one has failed.

    Raises:
        RuntimeError: one has.
    """
    failed = [process.exitcode for process in started if process.exitcode]
    if failed:
        for process in started:
            process.kill()
            process.join()
        raise RuntimeError(f"a process ended with {failed[0]}; above is why, unless it was killed")


def still_true(old: Cells, remake: Callable[[Sequence[Cell]], Iterable[Made]], precision: str) -> Cells:
    """The cells that still count: those whose method, by a few of them made again, comes to the same.

    Asked for when weights, rewards or the code of the search have changed since the last check. The few that
    are made again take the place of the old ones, whatever they came to. Cells of another precision than
    this run's stay, unchecked: what differs might be the rounding.

    Args:
        old: all of them.
        remake: makes cells anew.
        precision: of this run.
    """
    old = {cell: result for cell, result in old.items() if cell.method in METHODS}
    stale = {c for c, result in old.items() if c.precision == precision and result.code != loaded()}
    few: dict[str, list[Cell]] = {}
    for cell in sorted(stale, key=lambda cell: (cell.nfe, cell.prompt)):
        few.setdefault(cell.method, []).append(cell)
    again = [cell for own in few.values() for cell in own[:: math.ceil(len(own) / CHECKED)]]
    remade = dict(remake(again))
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
    prompts = range(*options.prompts)
    return [
        Stage(options.rewards, options.nfe, options.methods, prompts, draw) for draw in range(options.seeds)
    ]


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="what is under way then is finished")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of matrix products")
    parser.add_argument("--rows", type=int, default=24, help="of a call, about")
    parser.add_argument("--most", type=int, default=64, help="searches under way in a process")
    parser.add_argument("--file", type=Path, default=cells.FILE, help="of the cells")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="in place of the usual order")
    parser.add_argument(
        "--rewards", nargs="+", default=["scene_match"], help="with --methods, as are those below"
    )
    parser.add_argument("--nfe", type=int, nargs="+", default=[100])
    parser.add_argument(
        "--prompts", type=int, nargs=2, default=[TABLE.start, TABLE.stop], help="from one number to another"
    )
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = options_of(arguments)
    device = Device(options.device, options.rows, options.most, options.processes)
    until = time.time() + 60 * options.minutes
    checked, done = cells.read(options.file)
    if options.minutes:
        if checked.get(options.precision) != loaded():
            done = still_true(done, lambda again: make(again, device), options.precision)
        checked[options.precision] = loaded()
        cells.write(done, checked, options.file)
        asked = [*missing(stages_of(options), done, options.precision)]
        for number, one in enumerate(make(asked, device, until), start=1):
            cells.append([one], options.file)
            if number % 1000 == 0:
                print(f"{number} of {len(asked)} cells", flush=True)
        cells.write(cells.read(options.file)[1], checked, options.file)
    elif stale := sorted(precision for precision, under in checked.items() if under != loaded()):
        told = ", ".join(stale)
        print(
            f"the code has changed since the cells in {told} were checked; --minutes 1 checks them",
            flush=True,
        )
    if options.file == cells.FILE:
        publish(*cells.read())


def publish(checked: cells.Checked, done: Cells) -> None:
    """Write tables, plots and the page to read, and say what it claims and the cells do not bear out."""
    TABLES.mkdir(exist_ok=True)
    (TABLES / "search.md").write_text(report.told(checked, done), encoding="utf-8")
    plots.write(report.grouped(done))
    read = page.told(done)
    page.PAGE.write_text(read, encoding="utf-8")
    for words in page.false_claims(read):
        print(f"docs/search.md, no longer true: {words}", flush=True)


if __name__ == "__main__":
    main()
