"""Writing results: JSON for programs and a Markdown table for people, side by side."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save(name: str, data: dict[str, Any], markdown: str) -> None:
    """Write results/name.json and results/name.md, and print the table."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown + "\n")
    print(markdown)


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
