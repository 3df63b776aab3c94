"""The file that results add up in."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cells
from benchmarks.cells import Cell, Result

CELLS = {
    Cell("scene_match", 100, "best_of_n, 1 step", 3, 0): Result(0.25, 1.0, 100, "AAAA", ""),
    Cell("scene_match", 100, "best_of_n, 1 step", 3, 0, "bfloat16"): Result(
        0.2, 1.0, 100, "AAAA", "", "c0de"
    ),
    Cell("object_count", 50, "rbf", 0, 2): Result(1.0, 0.0, 50, "", "25.9.16"),
}
IDLE = {
    f"benchmarks/{name}.py" for name in ("cells", "page", "pictures", "plots", "report", "search", "tables")
} | {"models/rewards/protocol.py"}
"""What is loaded, and cannot change what a search finds. What can of models/*.py, `DECIDES` names."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cells.csv"


def test_no_file_is_no_cells(file: Path) -> None:
    assert cells.read(file) == ({}, {})


def test_what_is_written_and_added_is_read(file: Path) -> None:
    checked = {"float32": "f00", "bfloat16": "ba5"}
    cells.write({}, {}, file)
    cells.append(CELLS.items(), file)
    assert cells.read(file) == ({}, CELLS)
    cells.write(CELLS, checked, file)
    assert cells.read(file) == (checked, CELLS)


def test_of_a_line_cut_off_nothing_counts(file: Path) -> None:
    cells.write(CELLS, {}, file)
    whole = file.read_text()
    for cut in range(2, 40):
        file.write_text(whole[:-cut])
        assert len(cells.read(file)[1]) == len(CELLS) - 1


def test_a_changed_search_has_another_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "sampling" / "strategies" / "rbf.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    source.write_text("one")
    before = cells.digest()
    source.write_text("two")
    assert cells.digest() != before


def test_the_digest_is_of_all_that_a_search_of_a_benchmark_runs_through() -> None:
    # In a process of its own: other tests load more.
    program = """
import sys
from benchmarks.cells import Cell
from benchmarks.search import Device, measured
list(measured([Cell("scene_match", 50, "rbf", 0, 0), Cell("scene_match", 10, "base", 0, 0)], Device()))
names = ("sampling", "models", "benchmarks")
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in names))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=cells.ROOT, capture_output=True, check=True)
    loaded = {Path(path).relative_to(cells.ROOT) for path in ran.stdout.decode().split()}
    counted = {path.relative_to(cells.ROOT) for path in cells.decisive()}
    assert {path for path in counted if path.parent == Path("models")} <= loaded, "renamed, or out of use"
    left_out = {path for path in loaded - counted if path.name != "__init__.py"}
    assert {path.as_posix() for path in left_out if path.parent != Path("models")} == IDLE
    assert not counted & {Path(path) for path in cells.APART}
