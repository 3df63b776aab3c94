"""docs/search.md and its tables are what the cells say, and its claims are no more than they bear out."""

from dataclasses import replace

import pytest
from jinja2 import UndefinedError

from benchmarks import cells, page, report
from benchmarks.cells import Cell, Cells, Result
from benchmarks.methods import LARGE_NAME, SMALL_NAME
from benchmarks.page import Gain, Mean


def test_the_page_and_the_tables_are_what_the_cells_say_and_no_claim_is_false() -> None:
    checked, done = cells.read()
    assert page.PAGE.read_text(encoding="utf-8") == page.told(done), "python -m benchmarks.search --minutes 0"
    assert (page.TABLES / "search.md").read_text(encoding="utf-8") == report.told(checked, done)
    assert page.false_claims(page.told(done)) == []


@pytest.fixture(scope="module")
def done() -> Cells:
    """The default over svdd by .1 and less, and none of the judge's verdicts apart."""
    found: Cells = {}
    for prompt in range(8):
        ours = Cell("scene_match", 100, SMALL_NAME, prompt, 0)
        found[ours] = Result(0.7, 1.0, 100)
        found[replace(ours, method="svdd")] = Result(0.6 + prompt / 100, 1.0, 98)
        found[replace(ours, nfe=200, method=LARGE_NAME)] = Result(0.8, float(prompt > 0), 200)
    return found


def test_figures_are_of_pairs_and_claims_are_held_against_them(done: Cells) -> None:
    def told(template: str) -> str:
        return page.told(done, template)

    assert told('{{ over("svdd", 100) }}') == ".065 ± .009 / .000 ± .000"
    assert told('{{ between("svdd", 100, "rbf", 200).given }}') == ".165 ± .009"
    assert told('{{ between("rbf", 100, "rbf", 200).held_out }}') == "-.125 ± .125"
    assert told('{{ over("svdd", 100).searches }}, {{ size(100) }}') == "8, 8 searches of 8 prompts"
    assert told('{{ mean("svdd", 100) }} {{ leads(100, "given") }}') == ".635 ± .009 True"
    assert told('{{ claim("ahead", over("svdd", 100).given.ahead) }}') == "ahead"
    assert told('{{ claim("ahead in both", ahead(["svdd"], [100])) }}') == "~~ahead in both~~"
    assert "| svdd |  | .635 ± .009 / 1.000 ± .000 |  |  |" in told('{{ budgets("scene_match") }}')
    assert "| svdd, 100 NFE | rbf, 100 NFE | 8 |" in told(
        '{{ differences("The default over those that lead", ["svdd"]) }}'
    )


def test_a_claim_that_does_not_hold_is_found_in_the_page(done: Cells) -> None:
    template = '{{ claim("One", true) }}, {{ claim("two", true, false) }} and {{ claim("three", false) }}.'
    told = page.told(done, template)
    assert told == "One, ~~two~~ and ~~three~~."
    assert page.false_claims(told) == ["two", "three"]


def test_a_name_that_the_template_gets_wrong_is_an_error(done: Cells) -> None:
    with pytest.raises(UndefinedError, match="'svvd' is undefined"):
        page.told(done, "{{ over(svvd, 100) }}")


def test_level_and_ahead_are_told_by_two_errors() -> None:
    assert str(Mean(10.5, 0.25)) == "10.500 ± .250"
    assert Mean(0.02, 0.01).ahead
    assert not Mean(0.019, 0.01).ahead
    assert Mean(-0.019, 0.01).level
    assert not Mean(-0.02, 0.01).level
    assert Mean(0.0, 0.0).level
    assert not Mean(0.01, 0.0).level
    assert not Gain(Mean(0.1, 0.01), Mean(0.0, 0.01), 9).ahead
    assert not Gain(Mean(0.1, 0.01), Mean(0.0, 0.01), 9).level
