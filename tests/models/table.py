"""What became of each check of each thing checked, as a table: pytest's plugin."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

Place = tuple[str, str]


class Table:
    """The outcomes of tests in their cells.

    Args:
        title: over the column of what is checked.
        columns: the checks.
        place: row and column of a test; None: it has none.
    """

    def __init__(
        self, title: str, columns: Iterable[str], place: Callable[[pytest.Function], Place | None]
    ) -> None:
        self.title = title
        self.columns = [*dict.fromkeys(columns)]
        self.place = place
        self.cells: dict[Place, list[bool]] = defaultdict(list)
        self.places: dict[str, Place] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Function]) -> None:
        """Note where each test stands in the table, one place at most; with `--collect-only` as passed."""
        placed = ((item.nodeid, self.place(item)) for item in items)
        self.places |= {test: place for test, place in placed if place}
        if config.option.collectonly:
            self.cells.update({place: [True] for place in self.places.values()})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Fill a cell."""
        if report.nodeid in self.places and (report.when == "call" or report.failed):
            self.cells[self.places[report.nodeid]].append(report.passed)

    def cell(self, row: str, column: str) -> str:
        """One cell; a dash where a check does not apply."""
        outcomes = self.cells.get((row, column))
        return "-" if not outcomes else "yes" if all(outcomes) else "FAILED"

    def lines(self, order: Iterable[str] = ()) -> list[str]:
        """The table, in Markdown, its rows in this order, or in that of their tests."""
        checked = dict.fromkeys(row for row, _ in self.places.values())
        names = [name for name in order or checked if name in checked]
        rows = [[name, *(self.cell(name, column) for column in self.columns)] for name in names]
        head = [[self.title, *self.columns], ["---"] * (1 + len(self.columns))]
        return ["| " + " | ".join(row) + " |" for row in (*head, *rows)]


def run(table: Table, files: Sequence[Path], order: Iterable[str] = (), options: Sequence[str] = ()) -> int:
    """Run the tests of these files, print the table, and return pytest's exit code."""
    with redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "--no-header", "-p", "no:randomly", *options, *map(str, files)], [table])
    sys.stdout.write("\n".join(table.lines(order)) + "\n")
    return code
