"""Which cells are made, which old ones still count, and what the tables compare."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import report
from benchmarks.cells import Cell, Cells, Result
from benchmarks.methods import METHODS, ORDER, Stage
from benchmarks.search import PROMPTS, Device, Made, measure, missing, possible, prompts, still_true

DEVICE = Device("cpu", half=False, together=8, rows=24)
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


def test_old_cells_count_as_long_as_they_come_out_the_same(made: Cells) -> None:
    wrong = replace(made[BASE], given=made[BASE].given + 0.02)

    def remake(groups: Iterator[list[Cell]]) -> Iterator[Made]:
        return (measure(group, DEVICE) for group in groups)

    gone = Cell("scene_match", 10, "no such method", 0, 0)
    assert still_true({**made, BASE: wrong, gone: wrong}, remake) == {RBF: made[RBF]}


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


def test_diversity_compares_seeds_of_one_prompt() -> None:
    near, far = "A" * 22 + "==", "f" * 22 + "=="
    pictures = {(0, 0): near, (0, 1): far, (1, 0): near, (1, 1): near, (2, 0): far}
    spread = report.spread({key: Result(0, 0, 1, mark) for key, mark in pictures.items()})
    assert spread[0] > 1
    assert spread[1:] == [0]
