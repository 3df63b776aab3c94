"""The table of docs/models.md has a 'yes' where there is a check, and a dash where there is none."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from tests.models import test_families
from tests.models.__main__ import CHECKS, COLUMNS, RUNS

PAGE = Path("docs/models.md")


def checked() -> Iterator[tuple[str, str]]:
    """Row and column of every check that is made."""
    for test in (*RUNS, *CHECKS):
        marks = [mark.args for mark in getattr(test_families, test).pytestmark if mark.name == "parametrize"]
        [cases] = [values for names, values in marks if names == ("name", "scale")]
        for case in cases:
            name = getattr(case, "values", case)[0]
            if test in CHECKS:
                yield name, CHECKS[test]
                continue
            kind = "unguided" if "unguided" in case.id else "guided"
            yield from ((name, f"{RUNS[test]} {kind}, batch {batch}") for batch in (1, 3))


def test_the_page_has_the_checks_that_are_made() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| family |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(bool, lines[start:])]
    columns, _, *families = rows
    assert columns == ["family", *COLUMNS, *CHECKS.values()]
    cells = {
        (row[0], column): cell for row in families for column, cell in zip(columns[1:], row[1:], strict=True)
    }
    made = set(checked())
    assert {place for place, cell in cells.items() if cell == "yes"} == made
    assert {cell for place, cell in cells.items() if place not in made} == {"-"}
