"""The file that results add up in."""

from pathlib import Path

import pytest

from benchmarks import cells
from benchmarks.cells import Cell, Result

CELLS = {
    Cell("scene_match", 100, "best_of_n, 1 step", 3, 0): Result(0.25, 1.0, 100, "AAAA", ""),
    Cell("object_count", 50, "rbf", 0, 2): Result(1.0, 0.0, 50, "", "25.9.16"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cells.csv"


def test_no_file_is_no_cells(file: Path) -> None:
    assert cells.read(file) == (cells.digest(), {})


def test_what_is_written_and_added_is_read(file: Path) -> None:
    cells.write({}, file)
    cells.append(CELLS.items(), file)
    assert cells.read(file) == (cells.digest(), CELLS)
    cells.write(CELLS, file)
    assert cells.read(file) == (cells.digest(), CELLS)


def test_of_a_line_cut_off_nothing_counts(file: Path) -> None:
    cells.write(CELLS, file)
    whole = file.read_text()
    for cut in range(2, 40):
        file.write_text(whole[:-cut])
        assert len(cells.read(file)[1]) == 1


def test_a_changed_search_has_another_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "sampling" / "strategies" / "rbf.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    source.write_text("one")
    before = cells.digest()
    source.write_text("two")
    assert cells.digest() != before
