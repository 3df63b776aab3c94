"""Results as cells, one search each, in one compact file that grows over many runs."""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.tables import RESULTS

FILE = RESULTS / "search.csv"
ROOT = Path(__file__).parent.parent
DECIDES = ("sampling/**/*.py", "models/rewards/*.py", "models/shapes/*.*", "models/shapes/weights/**/*.*")


@dataclass(frozen=True, order=True)
class Cell:
    """Which search: prompt is a number in the hard set, nfe the budget."""

    reward: str
    nfe: int
    method: str
    prompt: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of it.

    Args:
        given: the reward that was searched by.
        held_out: the judge's verdict on the picture.
        spent: NFE.
        picture: benchmarks.pictures.print_of the picture; empty where it was not taken.
        draws: evaluations at each level of the grid, of `rbf` only: "25.9.14" and so on.
    """

    given: float
    held_out: float
    spent: int
    picture: str = ""
    draws: str = ""


Cells = dict[Cell, Result]
COLUMNS = [field.name for kind in (Cell, Result) for field in fields(kind)]


def digest() -> str:
    """Of the weights and of the code that decides what a search finds."""
    whole = hashlib.sha256()
    for path in sorted(path for pattern in DECIDES for path in ROOT.glob(pattern)):
        whole.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def read(file: Path = FILE) -> tuple[str, Cells]:
    """The digest that the cells were made under, and the cells; of a line cut off by a kill nothing."""
    if not file.exists():
        return digest(), {}
    first, *lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return first.strip("# \n"), dict(_parsed(row) for row in rows)


def write(cells: Mapping[Cell, Result], file: Path = FILE) -> None:
    """Write all cells, in order, under the present digest."""
    file.parent.mkdir(exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(f"# {digest()}\n{','.join(COLUMNS)}\n", encoding="utf-8")
    append(sorted(cells.items()), beside)
    beside.replace(file)


def append(cells: Iterable[tuple[Cell, Result]], file: Path = FILE) -> None:
    """Add cells to a file that `write` began."""
    with file.open("a", encoding="utf-8", newline="") as out:
        rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        rows.writerows(asdict(cell) | asdict(_short(result)) for cell, result in cells)


def _short(result: Result) -> Result:
    return Result(
        round(result.given, 5), round(result.held_out, 5), result.spent, result.picture, result.draws
    )


def _parsed(row: Mapping[str, str]) -> tuple[Cell, Result]:
    cell = Cell(row["reward"], int(row["nfe"]), row["method"], int(row["prompt"]), int(row["seed"]))
    given, held_out = float(row["given"]), float(row["held_out"])
    return cell, Result(given, held_out, int(row["spent"]), row["picture"], row["draws"])
