"""Writing results: JSON for programs beside the benchmarks, a Markdown table for people in docs/results."""

import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).parent.parent / "docs" / "results"


def save(
    name: str, data: dict[str, Any], markdown: str, *, results: Path = RESULTS, tables: Path = TABLES
) -> None:
    """Write results/name.json and tables/name.md, and print the table."""
    for folder in (results, tables):
        folder.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (tables / f"{name}.md").write_text(f"# {name}\n\nMade by `{command()}`.\n\n{markdown}\n")
    print(markdown)


def command() -> str:
    """The command line of this process, as a reader would type it."""
    program = Path(sys.argv[0])
    module = "benchmarks" if program.name == "__main__.py" else f"benchmarks.{program.stem}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; at least two values."""
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5


def shown(values: Sequence[float]) -> str:
    """Mean +- standard error with three decimals."""
    mean, error = mean_and_error(values)
    return f"{mean:.3f} ± {error:.3f}"
