"""Which cells are made, which old ones still count, and what the tables compare."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cells, plots, report
from benchmarks.cells import Cell, Cells, Result
from benchmarks.methods import CHOSEN_ON, FRESH, METHODS, ORDER, SMALL_NAME, Stage, named, seed_of
from benchmarks.search import (
    Device,
    Made,
    loaded,
    make,
    measured,
    missing,
    possible,
    prompts,
    still_true,
)

DEVICE = Device(rows=24, most=8)
STAGE = Stage(["scene_match"], [10, 50], ["base", "rbf", "rbf, upstream"], range(3))
BASE = Cell("scene_match", 10, "base", 0, 0)
RBF = Cell("scene_match", 50, "rbf", 0, 0)


def test_each_cell_of_all_stages_is_asked_for_once_and_can_be_paid() -> None:
    asked = [*missing(ORDER, {})]
    assert len(asked) == len(set(asked))
    assert all(possible(cell.method, cell.nfe) for cell in asked)
    assert {cell.method for cell in asked} | {"rbf"} == METHODS.keys(), (
        "the default's cells have its settings' name"
    )


def test_what_is_there_is_not_made_again_and_the_longest_comes_first() -> None:
    asked = [*missing([STAGE, STAGE], {})]
    assert [(c.method, c.nfe, c.prompt) for c in asked] == [
        *((SMALL_NAME, 50, prompt) for prompt in range(3)),
        *(("base", 10, prompt) for prompt in range(3)),
    ]
    done = {asked[0]: Result(0, 0, 1), replace(asked[1], precision="tf32"): Result(0, 0, 1)}
    assert [*missing([STAGE], done)] == asked[2:]


def test_prompts_are_distinct() -> None:
    assert len(prompts()) == len(set(prompts())) == FRESH.stop


@pytest.fixture(scope="module")
def made() -> Cells:
    made = dict(measured([BASE, RBF], DEVICE))
    return {cell: made[cell] for cell in (BASE, RBF)}


def test_a_cell_holds_what_its_search_found(made: Cells) -> None:
    [base, rbf] = made.values()
    assert (base.spent, rbf.spent, base.draws) == (10, 50, "")
    assert rbf.given >= base.given
    assert sum(map(int, rbf.draws.split("."))) == 50
    assert rbf.draws.startswith("12.")
    assert rbf.draws.endswith(".4")


def remake(asked: Sequence[Cell]) -> Iterator[Made]:
    return measured(asked, DEVICE)


def test_processes_make_each_cell_once_and_none_after_the_time(made: Cells) -> None:
    two = Device(rows=24, most=8, processes=2)
    others = [replace(BASE, seed=seed) for seed in range(1, 4)]
    found = [*make([BASE, RBF, *others], two)]
    assert sorted(cell for cell, _ in found) == sorted([BASE, RBF, *others])
    assert {cell: result.given for cell, result in found if cell in made} == {
        cell: pytest.approx(made[cell].given, abs=1e-4) for cell in made
    }
    assert [*make([BASE, RBF, *others], two, until=0.0)] == []


def test_a_process_that_fails_is_not_passed_over() -> None:
    with pytest.raises(RuntimeError, match="a process ended with 1"):
        list(make([replace(BASE, reward="no such reward")], DEVICE))


def test_a_process_that_is_killed_is_not_waited_for() -> None:
    making = make([replace(RBF, nfe=5000, seed=seed) for seed in range(2)], replace(DEVICE, processes=2))

    def kill() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        os.kill(int(multiprocessing.active_children()[0].pid or 0), signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(RuntimeError, match=f"a process ended with {-signal.SIGKILL}"):
        list(making)
    killing.join()
    assert not multiprocessing.active_children()


def test_a_process_whose_parent_is_gone_takes_no_more() -> None:
    program = """
from tests.benchmarks.test_search import BASE, DEVICE, RBF, make, replace
next(make([BASE, *(replace(RBF, seed=seed) for seed in range(5000))], DEVICE))
import multiprocessing, os
print(multiprocessing.active_children()[0].pid, flush=True)
os._exit(0)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=cells.ROOT, capture_output=True, check=True)
    orphan = Path("/proc", ran.stdout.decode().split()[-1])
    until = time.monotonic() + 60
    while orphan.exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_old_cells_count_as_long_as_they_come_out_the_same(made: Cells) -> None:
    old = {cell: replace(result, code="old") for cell, result in made.items()}
    wrong = replace(old[BASE], given=made[BASE].given + 0.02)
    gone = Cell("scene_match", 10, "no such method", 0, 0)
    kept = still_true({**old, BASE: wrong, gone: wrong}, remake, "float32")
    assert kept.keys() == made.keys()
    found = [kept[cell].given for cell in made]
    assert found == pytest.approx([result.given for result in made.values()], abs=1e-5), "the wrong one too"
    assert {result.code for result in kept.values()} == {loaded()}, "each was made again"


def test_the_cells_made_again_take_the_place_of_the_old_and_the_others_keep_their_origin() -> None:
    def again(asked: Iterable[Cell]) -> Iterator[Made]:
        for cell in asked:
            yield cell, Result(0.9 if cell.prompt < 2 else 0.5, 0.0, 10, code=loaded())

    old = {replace(BASE, prompt=prompt): Result(0.5, 0.0, 10, code="old") for prompt in range(10)}
    kept = still_true(old, again, "float32")
    assert [kept[cell].given for cell in old] == [0.9] + [0.5] * 9, "of 5 made again 4 agree"
    assert [kept[cell].code for cell in old] == [loaded(), "old"] * 5

    def otherwise(asked: Iterable[Cell]) -> Iterator[Made]:
        return ((cell, Result(0.9, 0.0, 10, code=loaded())) for cell in asked)

    tf32 = {replace(cell, precision="tf32"): result for cell, result in old.items()}
    kept = still_true(tf32, again, "float32")
    assert kept == tf32, "what differs might be the rounding"

    new = {replace(BASE, prompt=77): Result(0.1, 0.0, 10, code=loaded())}
    kept = still_true({**old, **new}, otherwise, "float32")
    assert {cell.prompt for cell in kept} == {0, 2, 4, 6, 8, 77}, "begun anew, from what is of this code"


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # torch's own word on autocast and a norm
def test_a_cell_says_in_which_precision_and_by_which_code_it_was_made(made: Cells) -> None:
    half = replace(BASE, precision="bfloat16")
    [(cell, result)] = measured([half], DEVICE)
    assert cell == half
    assert {each.code for each in (result, *made.values())} == {cells.digest()}
    assert 0 < abs(result.given - made[BASE].given) < 0.05


def test_no_two_prompts_share_a_seed() -> None:
    seeds = [seed_of(prompt, draw) for prompt in range(CHOSEN_ON.stop) for draw in range(3)]
    assert len({*seeds}) == len(seeds)
    [first, second] = missing([Stage(["scene_match"], [50], ["rbf"], range(2))], {}, "bfloat16")
    assert first == Cell("scene_match", 50, SMALL_NAME, 0, seed_of(0, 0), "bfloat16")
    assert first.seed != second.seed


def results(rewards: dict[tuple[str, int, int], float]) -> Cells:
    nfe = {"base": 10}
    return {
        Cell("scene_match", nfe.get(method, 100), named(method, 100), prompt, seed): Result(reward, 0.0, 100)
        for (method, prompt, seed), reward in rewards.items()
    }


def test_methods_are_compared_on_the_cells_they_share_and_by_prompt() -> None:
    rewards = {("rbf", p, s): 0.8 for p in range(9) for s in range(2)}
    rewards |= {("svdd", p, s): 0.8 - p / 10 for p in range(8) for s in range(2)}
    rewards["svdd", 0, 1] = 0.2
    shared = report.common(
        report.grouped(results(rewards)), "scene_match", 100, ["rbf", "svdd", "smc"]
    ).results
    assert [*shared] == ["rbf", "svdd"]
    assert len(shared["rbf"]) == 16
    assert report.column(shared["svdd"], report.VALUES["given"])[:2] == pytest.approx([0.5, 0.7])
    assert "| 0.388 ± 0.072 |" in report.compared(shared, "scene_match")


def test_a_search_made_in_several_precisions_counts_once_as_the_most_precise_that_all_have_it_in() -> None:
    ours, other = (Cell("scene_match", 100, name, 0, 0) for name in (SMALL_NAME, "svdd"))
    made = {
        (ours, "float32"): 0.5,
        (ours, "tf32"): 0.4,
        (ours, "bfloat16"): 0.3,
        (other, "bfloat16"): 0.2,
        (other, "tf32"): 0.1,
        (replace(ours, prompt=1), "tf32"): 0.6,
        (replace(other, prompt=1), "float32"): 0.7,
    }
    done = {replace(cell, precision=p): Result(given, 0.0, 100) for (cell, p), given in made.items()}
    made_by = report.grouped(done)
    both = report.common(made_by, "scene_match", 100, ["rbf", "svdd"])
    given = {name: [result.given for result in own.values()] for name, own in both.results.items()}
    assert given == {"rbf": [0.4, 0.6], "svdd": [0.1, 0.7]}
    assert both.told == "1 mixed, 1 tf32"
    alone = report.alone(report.of(made_by, "scene_match", 100, "rbf"))
    assert [result.given for result in alone.values()] == [0.5, 0.6]


def test_tables_are_of_other_prompts_than_those_that_settings_were_chosen_on() -> None:
    found: Cells = {}
    for prompt in (*range(10), *range(200, 220)):
        for method in (SMALL_NAME, "svdd", "smc", "rbf, 1 chain, 6 noises"):
            found[Cell("scene_match", 100, method, prompt, 0)] = Result(prompt / 1000, 0.0, 100)
    told = [*report.tables(report.grouped(found))]
    [one] = [each for each in told if each.startswith("## All strategies: ")]
    [settings] = [each for each in told if each.startswith("## Settings")]
    assert one.startswith("## All strategies: scene_match, 100 NFE, 10 searches of 10 prompts each (float32)")
    assert "| 0.004 ± " in one
    assert "20 searches of 20 prompts each" in settings
    assert "| 0.209 ± " in settings


def test_differences_are_by_pairs() -> None:
    found: Cells = {}
    for prompt in range(9):
        for nfe, given in ((100, 0.5), (200, 0.6)):
            cell = Cell("scene_match", nfe, named("rbf", nfe), prompt, 0)
            found[cell] = Result(given + prompt / 100, float(prompt < 3 and nfe == 200), nfe)
    pairs = [(("rbf", 100), ("rbf", 200)), (("rbf", 50), ("rbf", 100))]
    groups = report.grouped(found)
    [_, _, line] = report.differences(groups, "scene_match", pairs).splitlines()
    assert line == "| rbf, 100 NFE | rbf, 200 NFE | 9 | 9 | float32 | 0.100 ± 0.000 | 0.333 ± 0.167 |"
    assert report.differences(groups, "scene_match", pairs[1:]) == ""


def test_what_a_precision_changes_is_told_of_searches_made_in_both() -> None:
    found: Cells = {}
    for prompt in range(8):
        full = Cell("scene_match", 100, "rbf", prompt, 0)
        found[full] = Result(0.5, 1.0, 100)
        found[replace(full, precision="tf32")] = Result(0.6, float(prompt > 0), 100)
    groups = report.grouped(found)
    told = report.precisions(groups, "scene_match")
    assert told.startswith(
        "Over 8 searches of 8 prompts in tf32 less in float32: 0.100 ± 0.000 given, -0.125"
    )
    assert told.endswith("change 0.1000, largest 0.10; 1 verdicts differ.")
    assert report.precisions(groups, "object_count") == ""


def test_diversity_compares_seeds_of_one_prompt() -> None:
    near, far = "A" * 22 + "==", "f" * 22 + "=="
    pictures = {(0, 0): near, (0, 1): far, (1, 0): near, (1, 1): near, (2, 0): far}
    spread = plots.spread({key: Result(0, 0, 1, mark) for key, mark in pictures.items()})
    assert spread[0] > 1
    assert spread[1:] == [0]
