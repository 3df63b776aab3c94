"""Results as cells, one search each, in one compact file that grows over many runs."""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.tables import RESULTS

FILE = RESULTS / "search.csv"
ROOT = Path(__file__).parent.parent
DECIDES = (
    "sampling/*.py",
    "sampling/strategies/*.py",
    *(f"models/{name}.py" for name in ("modular", "families", "processors", "weights")),
    *(f"models/rewards/{name}.py" for name in ("composite", "scene_match", "object_count", "scene_exact")),
    *(
        f"models/shapes/{name}"
        for name in ("world.py", "captions.py", "judge.py", "detector.*", "weights/**/*.*")
    ),
    *(f"benchmarks/{name}.py" for name in ("ablations", "crowd", "methods", "recall", "setup", "together")),
)
"""What computes a cell."""
APART = ("sampling/calibration.py", "sampling/checkpoint.py")
"""What `DECIDES` names, and no search of a benchmark calls."""


@dataclass(frozen=True, order=True)
class Cell:
    """Which search: prompt is a number in the hard set, nfe the budget, precision that of matrix products."""

    reward: str
    nfe: int
    method: str
    prompt: int
    seed: int
    precision: str = "float32"


@dataclass(frozen=True)
class Result:
    """What came of it.

    Args:
        given: the reward that was searched by.
        held_out: the judge's verdict on the picture.
        spent: NFE.
        picture: benchmarks.pictures.print_of the picture; empty where it was not taken.
        draws: evaluations at each level of the grid, of `rbf` only: "25.9.14" and so on.
        code: digest of the code and weights that made it; "unknown" of cells older than this column.
    """

    given: float
    held_out: float
    spent: int
    picture: str = ""
    draws: str = ""
    code: str = "unknown"


Cells = dict[Cell, Result]
Checked = dict[str, str]
"""Precision to the digest under which its cells were last made again, a few of them, and held."""
COLUMNS = [field.name for kind in (Cell, Result) for field in fields(kind)]


def digest() -> str:
    """Of the weights and of the code that decides what a search finds."""
    whole = hashlib.sha256()
    for path in decisive():
        whole.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()[:8]


def decisive() -> list[Path]:
    """The files that the digest is of."""
    apart = {ROOT / path for path in APART}
    return sorted(path for pattern in DECIDES for path in ROOT.glob(pattern) if path not in apart)


def read(file: Path = FILE) -> tuple[Checked, Cells]:
    """Under what the cells were last checked, and they; of a line cut off by a kill nothing."""
    if not file.exists():
        return {}, {}
    first, *lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    words = first.strip("# \n").replace(",", "").split()
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return dict(zip(words[::2], words[1::2], strict=True)), dict(_parsed(row) for row in rows)


def write(cells: Mapping[Cell, Result], checked: Mapping[str, str], file: Path = FILE) -> None:
    """Write all cells, in order, and under what they were checked."""
    file.parent.mkdir(exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(f"# {listed(checked)}\n{','.join(COLUMNS)}\n", encoding="utf-8")
    append(sorted(cells.items()), beside)
    beside.replace(file)


def listed(checked: Mapping[str, str]) -> str:
    """As in the first line of the file: "bfloat16 f00, float32 ba5"."""
    return ", ".join(f"{precision} {under}" for precision, under in sorted(checked.items()))


def append(cells: Iterable[tuple[Cell, Result]], file: Path = FILE) -> None:
    """Add cells to a file that `write` began."""
    with file.open("a", encoding="utf-8", newline="") as out:
        rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        rows.writerows(asdict(cell) | asdict(result) | _short(result) for cell, result in cells)


def _short(result: Result) -> dict[str, str]:
    """Rewards in few characters, for a file of many lines."""
    return {name: f"{round(getattr(result, name), 5):g}" for name in ("given", "held_out")}


def _parsed(row: Mapping[str, str]) -> tuple[Cell, Result]:
    numbers = {name: int(row[name]) for name in ("nfe", "prompt", "seed")}
    cell = Cell(reward=row["reward"], method=row["method"], precision=row["precision"], **numbers)
    given, held_out, spent = float(row["given"]), float(row["held_out"]), int(row["spent"])
    return cell, Result(given, held_out, spent, row["picture"], row["draws"], row["code"])
