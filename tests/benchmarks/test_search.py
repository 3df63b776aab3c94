"""Which cells are made, which old ones still count, and what the tables compare."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import cells, report
from benchmarks.cells import Cell, Cells, Result
from benchmarks.methods import METHODS, ORDER, Stage, seed_of
from benchmarks.search import (
    PROMPTS,
    Device,
    Made,
    loaded,
    measure,
    missing,
    possible,
    prompts,
    still_true,
)

DEVICE = Device("cpu", together=8, rows=24)
STAGE = Stage(["scene_match"], [10, 50], ["base", "rbf", "rbf, upstream"], range(3))
BASE = Cell("scene_match", 10, "base", 0, 0)
RBF = Cell("scene_match", 50, "rbf", 0, 0)


def test_each_cell_of_all_stages_is_asked_for_once_and_can_be_paid() -> None:
    asked = [cell for group in missing(ORDER, {}) for cell in group]
    assert len(asked) == len(set(asked))
    assert all(possible(cell.method, cell.nfe) for cell in asked)
    assert {cell.method for cell in asked} == METHODS.keys()


def test_what_is_there_is_not_made_again() -> None:
    [first, *others] = missing([STAGE, STAGE], {})
    assert [(cell.method, cell.nfe) for cell in first] == [("base", 10), ("rbf", 50)]
    assert [*missing([STAGE], dict.fromkeys(first, Result(0, 0, 1)))] == others


def test_prompts_are_distinct() -> None:
    assert len(prompts()) == len(set(prompts())) == PROMPTS


@pytest.fixture(scope="module")
def made() -> Cells:
    return dict(measure([BASE, RBF], DEVICE))


def test_a_cell_holds_what_its_search_found(made: Cells) -> None:
    [base, rbf] = made.values()
    assert (base.spent, rbf.spent, base.draws) == (10, 50, "")
    assert rbf.given >= base.given
    assert sum(map(int, rbf.draws.split("."))) == 50
    assert rbf.draws.startswith("25.")
    assert rbf.draws.endswith(".4")


def remake(groups: Iterator[list[Cell]]) -> Iterator[Made]:
    return (measure(group, DEVICE) for group in groups)


def test_old_cells_count_as_long_as_they_come_out_the_same(made: Cells) -> None:
    old = {cell: replace(result, code="old") for cell, result in made.items()}
    wrong = replace(old[BASE], given=made[BASE].given + 0.02)
    gone = Cell("scene_match", 10, "no such method", 0, 0)
    kept = still_true({**old, BASE: wrong, gone: wrong}, remake)
    assert kept.keys() == made.keys()
    found = [kept[cell].given for cell in made]
    assert found == pytest.approx([result.given for result in made.values()], abs=1e-5), "the wrong one too"
    assert {result.code for result in kept.values()} == {loaded()}, "each was made again"


def test_the_cells_made_again_take_the_place_of_the_old_and_the_others_keep_their_origin() -> None:
    def again(groups: Iterator[list[Cell]]) -> Iterator[Made]:
        for [cell] in groups:
            yield [(cell, Result(0.9 if cell.prompt < 2 else 0.5, 0.0, 10, code=loaded()))]

    old = {replace(BASE, prompt=prompt): Result(0.5, 0.0, 10, code="old") for prompt in range(10)}
    kept = still_true(old, again)
    assert [kept[cell].given for cell in old] == [0.9] + [0.5] * 9, "of 5 made again 4 agree"
    assert [kept[cell].code for cell in old] == [loaded(), "old"] * 5

    def otherwise(groups: Iterator[list[Cell]]) -> Iterator[Made]:
        return ([(cell, Result(0.9, 0.0, 10, code=loaded()))] for [cell] in groups)

    new = {replace(BASE, prompt=77): Result(0.1, 0.0, 10, code=loaded())}
    kept = still_true({**old, **new}, otherwise)
    assert {cell.prompt for cell in kept} == {0, 2, 4, 6, 8, 77}, "begun anew, from what is of this code"


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # torch's own word on autocast and a norm
def test_a_cell_says_in_which_precision_and_by_which_code_it_was_made(made: Cells) -> None:
    half = replace(BASE, precision="bfloat16")
    [(cell, result)] = measure([half], DEVICE)
    assert cell == half
    assert {each.code for each in (result, *made.values())} == {cells.digest()}
    assert 0 < abs(result.given - made[BASE].given) < 0.05


def test_no_two_prompts_share_a_seed_nor_have_one_of_the_cells_that_do() -> None:
    seeds = [seed_of(prompt, draw) for prompt in range(PROMPTS) for draw in range(3)]
    assert len({*seeds, 0, 1}) == len(seeds) + 2
    [first, second] = missing([Stage(["scene_match"], [50], ["rbf"], range(2))], {}, "bfloat16")
    assert first[0] == Cell("scene_match", 50, "rbf", 0, seed_of(0, 0), "bfloat16")
    assert first[0].seed != second[0].seed


def results(rewards: dict[tuple[str, int, int], float]) -> Cells:
    nfe = {"base": 10}
    return {
        Cell("scene_match", nfe.get(method, 100), method, prompt, seed): Result(reward, 0.0, 100)
        for (method, prompt, seed), reward in rewards.items()
    }


def test_methods_are_compared_on_the_cells_they_share_and_by_prompt() -> None:
    rewards = {("rbf", p, s): 0.8 for p in range(9) for s in range(2)}
    rewards |= {("svdd", p, s): 0.8 - p / 10 for p in range(8) for s in range(2)}
    rewards["svdd", 0, 1] = 0.2
    shared = report.common(results(rewards), "scene_match", 100, ["rbf", "svdd", "smc"])
    assert [*shared] == ["rbf", "svdd"]
    assert len(shared["rbf"]) == 16
    assert report.column(shared["svdd"], report.VALUES["given"])[:2] == pytest.approx([0.5, 0.7])
    assert "| 0.388 ± 0.072 |" in report.compared(shared, "scene_match")


def test_cells_are_paired_within_one_precision_and_each_seed_counts_once() -> None:
    both = [
        (Cell("scene_match", 100, method, prompt, 0, precision), Result(0.5, 0.0, 100))
        for method, prompt, precision in [
            ("rbf", 0, "float32"),
            ("rbf", 0, "bfloat16"),
            ("rbf", 1, "float32"),
            ("rbf", 1, "bfloat16"),
            ("rbf", 2, "float32"),
            ("svdd", 0, "float32"),
            ("svdd", 0, "bfloat16"),
            ("svdd", 1, "bfloat16"),
            ("svdd", 2, "bfloat16"),
        ]
    ]
    shared = report.common(dict(both), "scene_match", 100, ["rbf", "svdd"])
    assert [*shared["rbf"]] == [*shared["svdd"]] == [(0, 0, "float32"), (1, 0, "bfloat16")]


def test_differences_are_by_pairs_of_one_precision() -> None:
    found: Cells = {}
    for prompt in range(9):
        for nfe, precision, given in ((100, "float32", 0.5), (200, "float32", 0.6), (200, "bfloat16", 0.9)):
            cell = Cell("scene_match", nfe, "rbf", prompt, 0, precision)
            found[cell] = Result(given + prompt / 100, float(prompt < 3 and nfe == 200), nfe)
    pairs = [(("rbf", 100), ("rbf", 200)), (("rbf", 50), ("rbf", 100))]
    [_, _, line] = report.differences(found, "scene_match", pairs).splitlines()
    assert line == "| rbf, 100 NFE | rbf, 200 NFE | 9 | 0.100 ± 0.000 | 0.333 ± 0.167 |"
    assert report.differences(found, "scene_match", pairs[1:]) == ""


def test_what_the_precision_changes_is_told_of_searches_made_in_both() -> None:
    found: Cells = {}
    for prompt in range(8):
        full = Cell("scene_match", 100, "rbf", prompt, 0)
        found[full] = Result(0.5, 1.0, 100)
        found[replace(full, precision="bfloat16")] = Result(0.6, float(prompt > 0), 100)
    told = report.precisions(found, "scene_match")
    assert told.startswith(
        "Over 8 searches of 8 prompts in bfloat16 less in float32: 0.100 ± 0.000 given, -0.125"
    )
    assert told.endswith("change 0.1000, largest 0.10; 1 verdicts differ.")
    assert report.precisions(found, "object_count") == ""


def test_diversity_compares_seeds_of_one_prompt() -> None:
    near, far = "A" * 22 + "==", "f" * 22 + "=="
    pictures = {(0, 0): near, (0, 1): far, (1, 0): near, (1, 1): near, (2, 0): far}
    found = {(*key, "float32"): Result(0, 0, 1, mark) for key, mark in pictures.items()}
    spread = report.spread({**found, (1, 0, "bfloat16"): Result(0, 0, 1, far)})
    assert spread[0] > 1
    assert spread[1:] == [0]
