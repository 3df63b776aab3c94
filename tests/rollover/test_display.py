"""A job document as a person sees it."""

from typing import Any

import pytest

from rollover.display import document_lines
from rollover.documents import generation

DOCUMENT: dict[str, Any] = {"id": "gen_1", "status": "succeeded", "request": {"prompt": "a red circle"}}
TO = "https://example.com/done"


@pytest.mark.parametrize(
    ("delivery", "shown"),
    [
        (None, f"webhook        {TO}, once it has ended"),
        ({"status": "delivered", "attempts": 1, "detail": None}, f"webhook        {TO}, delivered, tries: 1"),
        ({"status": "pending", "attempts": 2, "detail": "no answer"}, "pending, tries: 2 (no answer)"),
    ],
)
def test_a_webhook_and_how_far_it_is(delivery: dict[str, Any] | None, shown: str) -> None:
    request = DOCUMENT["request"] | {"webhook": {"url": TO, "events": ["completed"]}}
    assert shown in document_lines(generation(DOCUMENT | {"request": request, "webhook": delivery}))


def test_none_is_shown_where_there_is_none() -> None:
    assert "webhook" not in document_lines(generation(DOCUMENT))
