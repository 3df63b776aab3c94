"""Run the checks of every reward and print them as a table: `python -m tests.models.rewards`."""

import sys
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from models.registry import REWARDS

HERE = Path(__file__).parent
FORMULAS = {
    "test_clip_score_is_the_papers": "clip_score",
    "test_pickscore_is_the_model_cards": "pickscore",
    "test_hps_is_open_clips_cosine": "hps",
    "test_aesthetic_is_a_perceptron_over_the_unit_vector": "aesthetic",
    "test_siglip_is_the_probability_of_its_loss": "siglip",
    "test_vqa_score_is_the_probability_of_yes": "vqa_score",
}
CHECKS = {
    "test_every_picture_has_one_score_whatever_its_company": "order, batch",
    "test_any_size_has_a_score_in_range": "sizes, range",
    "test_scores_lie_in_the_stated_range": "sizes, range",
    "test_any_prompt_has_a_score": "prompts",
    "test_gradients_are_the_slopes_of_the_score": "gradient",
    "test_without_a_folder_it_says_how_to_make_one": "no weights",
    "test_pickles_are_refused": "pickle",
    "test_corrupt_weights_are_refused": "corrupt",
    "test_a_missing_file_is_named": "missing file",
}
COLUMNS = ["formula", *dict.fromkeys(CHECKS.values())]


class Table:
    """What became of each check of each reward: pytest's plugin."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self.places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        """Note where each test stands in the table; it has at most one place."""
        for item in items:
            name = item.originalname
            if name in FORMULAS:
                self.places[item.nodeid] = (FORMULAS[name], "formula")
            elif name in CHECKS and hasattr(item, "callspec"):
                self.places[item.nodeid] = (str(item.callspec.params["name"]), CHECKS[name])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Fill a cell."""
        if report.nodeid in self.places and (report.when == "call" or report.failed):
            self.cells[self.places[report.nodeid]].append(report.passed)

    def cell(self, reward: str, check: str) -> str:
        """One cell; a dash where a check does not apply."""
        outcomes = self.cells.get((reward, check))
        return "-" if not outcomes else "yes" if all(outcomes) else "FAILED"

    def lines(self) -> list[str]:
        """The table, in Markdown."""
        rewards = [name for name in REWARDS if any(reward == name for reward, _ in self.cells)]
        rows = [[f"`{name}`", *(self.cell(name, check) for check in COLUMNS)] for name in rewards]
        return [
            "| " + " | ".join(row) + " |"
            for row in (["reward", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *rows)
        ]


if __name__ == "__main__":
    table = Table()
    files = [str(HERE / name) for name in ("test_with_weights.py", "test_every_reward.py")]
    with redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "--no-header", "-p", "no:randomly", *files], [table])
    sys.stdout.write("\n".join(table.lines()) + "\n")
    sys.exit(code)
