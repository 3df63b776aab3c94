"""docs/api.md says what the code says."""

import json
from pathlib import Path
from typing import get_args

from contracts.errors import ERRORS, ErrorCode, JobErrorCode
from contracts.resolution import accept

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Cells of the rows of the table under a heading."""
    lines = iter(PAGE.splitlines())
    assert any(line == heading for line in lines), heading
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def test_every_error_is_documented() -> None:
    expected = [
        [f"`{code}`", str(kind.status or "-"), kind.title, kind.meaning] for code, kind in ERRORS.items()
    ]
    assert table("## Errors") == expected


def test_the_types_name_the_codes_of_the_table() -> None:
    assert set(get_args(ErrorCode)) == set(ERRORS)
    without_status = {code for code, kind in ERRORS.items() if kind.status is None}
    assert set(get_args(JobErrorCode)) == without_status | {"internal_error"}


def test_the_submission_shown_is_accepted_as_it_stands() -> None:
    shown = json.loads(PAGE.split("```json\n")[1].split("```")[0])
    assert accept(shown).model_dump(mode="json") == shown
