"""docs/search.md: a template whose figures come of the cells, and whose claims are held against them."""

import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from benchmarks import report
from benchmarks.cells import Cells
from benchmarks.methods import BUDGETS, CHOSEN_ON, FRESH, LARGE_NAME, MAIN, SMALL_NAME, TABLE, WIDE_NAME
from benchmarks.report import DIFFERENCES, OURS, REWARDS, VALUES, Grouped
from benchmarks.tables import TABLES, mean_and_error, table

PAGE = TABLES.parent / "search.md"
TEMPLATE = Path(__file__).with_name("search.md.jinja")
FALSE = "~~"
"""Around a claim that the cells do not bear out: Markdown strikes it through."""
NAMES = {
    "TABLE": TABLE,
    "CHOSEN_ON": CHOSEN_ON,
    "FRESH": FRESH,
    "ALL": report.ALL,
    "LARGE": LARGE_NAME,
    "SMALL": SMALL_NAME,
    "WIDE": WIDE_NAME,
    "LOCAL": report.LOCAL,
    "UPSTREAM": report.AUTHORS_WAY,
    "COUNT": REWARDS[1],
}
"""What the template calls prompts and methods."""


@dataclass(frozen=True)
class Mean:
    """Mean over prompts, and its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        """As in a sentence: ".039 ± .016"."""
        return re.sub(r"\b0\.", ".", f"{self.mean:.3f} ± {self.error:.3f}")

    @property
    def errors(self) -> float:
        """How many errors the mean is from none."""
        if self.mean == 0:
            return 0.0
        return self.mean / self.error if self.error else math.copysign(math.inf, self.mean)

    @property
    def level(self) -> bool:
        """Less than two errors from none."""
        return abs(self.errors) < 2

    @property
    def ahead(self) -> bool:
        """Two errors above none, or more."""
        return self.errors >= 2


@dataclass(frozen=True)
class Gain:
    """What some searches have over others in the given reward and in the held-out one, by pairs.

    Args:
        searches: pairs.
    """

    given: Mean
    held_out: Mean
    searches: int

    def __str__(self) -> str:
        """Both, the given one first."""
        return f"{self.given} / {self.held_out}"

    @property
    def both(self) -> tuple[Mean, Mean]:
        """One as the other."""
        return self.given, self.held_out

    @property
    def level(self) -> bool:
        """In both rewards."""
        return all(mean.level for mean in self.both)

    @property
    def ahead(self) -> bool:
        """In both rewards."""
        return all(mean.ahead for mean in self.both)


@dataclass(frozen=True)
class Figures:
    """What the template can ask for."""

    done: Grouped

    def between(
        self,
        method: str,
        nfe: int,
        other: str,
        budget: int,
        prompts: range = TABLE,
        reward: str = REWARDS[0],
    ) -> Gain:
        """What another method at a budget of its own has over one."""
        found = {
            name: report.of(self.done, reward, size, each, prompts)
            for name, each, size in (("from", method, nfe), ("to", other, budget))
        }
        start, end = report.aligned(found).results.values()
        given, held_out = (
            Mean(*mean_and_error([b - a for a, b in zip(*columns, strict=True)]))
            for columns in ([report.column(own, value) for own in (start, end)] for value in VALUES.values())
        )
        return Gain(given, held_out, len(start))

    def over(self, method: str, nfe: int, prompts: range = TABLE, reward: str = REWARDS[0]) -> Gain:
        """What the default has over a method at the same budget."""
        return self.between(method, nfe, OURS, nfe, prompts, reward)

    def ahead(
        self,
        methods: Iterable[str],
        budgets: Iterable[int],
        prompts: range = TABLE,
        reward: str = REWARDS[0],
        values: Iterable[str] = VALUES,
    ) -> bool:
        """Whether the default is ahead of all the methods at all the budgets, in these values."""
        gains = (self.over(name, nfe, prompts, reward) for name in methods for nfe in budgets)
        return all(getattr(gain, value).ahead for gain in gains for value in values)

    def leads(self, nfe: int, value: str, reward: str = REWARDS[0]) -> bool:
        """Whether the default's mean of this value is above all others in the table of all strategies."""
        methods = report.common(self.done, reward, nfe, [*MAIN]).results
        means = {name: statistics.fmean(report.column(own, VALUES[value])) for name, own in methods.items()}
        return means.pop(OURS) > max(means.values())

    def mean(self, method: str, nfe: int, reward: str = REWARDS[0]) -> Mean:
        """A method's given reward in the table of all strategies."""
        shared = report.common(self.done, reward, nfe, [*MAIN]).results[method]
        return Mean(*mean_and_error(report.column(shared, VALUES["given"])))

    def table(self, nfe: int, reward: str = REWARDS[0]) -> str:
        """All strategies."""
        return report.compared(report.common(self.done, reward, nfe, [*MAIN]).results, reward)

    def budgets(self, reward: str) -> str:
        """All strategies at all budgets, the given reward and the held-out one."""
        rows: dict[str, list[str]] = {name: [""] * len(BUDGETS) for name in MAIN}
        for place, nfe in enumerate(BUDGETS):
            for name, own in report.common(self.done, reward, nfe, [*MAIN]).results.items():
                means = (Mean(*mean_and_error(report.column(own, value))) for value in VALUES.values())
                rows[name][place] = " / ".join(map(str, means))
        return table(
            ["method", *(f"{nfe} NFE" for nfe in BUDGETS)], [[name, *row] for name, row in rows.items()]
        )

    def size(self, nfe: int, reward: str = REWARDS[0]) -> str:
        """Of that table."""
        keys = report.common(self.done, reward, nfe, [*MAIN]).results[OURS]
        return f"{len(keys)} searches of {len({prompt for prompt, _ in keys})} prompts"

    def differences(
        self,
        title: str,
        only: Collection[str] = (),
        budgets: Collection[int] = BUDGETS,
        reward: str = REWARDS[0],
    ) -> str:
        """One of `report.DIFFERENCES`, from some methods and budgets only."""
        prompts, pairs = DIFFERENCES[title]
        wanted = [pair for pair in pairs if (not only or pair[0][0] in only) and pair[0][1] in budgets]
        return report.differences(self.done, reward, wanted, prompts)

    def precision(self, name: str) -> str:
        """What one changes."""
        return report.precision_line(self.done, REWARDS[0], name)


def claim(words: str, *held: bool) -> str:
    """The words, struck through where not all that they need holds."""
    return words if all(held) else f"{FALSE}{words}{FALSE}"


def told(done: Cells, template: str | None = None) -> str:
    """The page."""
    figures = Figures(report.grouped(done))
    names: Mapping[str, Any] = NAMES | {
        "between": figures.between,
        "over": figures.over,
        "ahead": figures.ahead,
        "leads": figures.leads,
        "mean": figures.mean,
        "table": figures.table,
        "budgets": figures.budgets,
        "size": figures.size,
        "differences": figures.differences,
        "precision": figures.precision,
        "claim": claim,
    }
    # Markdown for people, of figures alone: nothing in it needs escaping.
    made = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    text = TEMPLATE.read_text(encoding="utf-8") if template is None else template
    return made.from_string(text).render(names)


def false_claims(page: str) -> list[str]:
    """Those of a page that are struck through."""
    return page.split(FALSE)[1::2]
