"""A job document as a person sees it."""

from pathlib import Path
from typing import Any

import pytest

from rollover.display import document_lines, summary
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


LEFT = {"nfe_spent": 60, "nfe_unspent": 140, "unspent_reason": "the job was canceled"}
ENDED = DOCUMENT | {"progress": {"nfe_spent": 60, "nfe_budget": 200}, "status": "canceled"}


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        (ENDED | {"usage": LEFT}, "60 of 200 (140 unspent: the job was canceled)"),
        (ENDED | {"usage": {"nfe_spent": 200}}, "200 of 200"),
        (ENDED | {"status": "running"}, "60 of 200"),
        # of a server that does not tell it
        (ENDED | {"usage": {"nfe_spent": 60}}, "60 of 200 (140 unspent: canceled)"),
    ],
)
def test_what_was_left_of_the_budget_and_why(document: dict[str, Any], shown: str) -> None:
    assert f"NFE spent      {shown}\n" in document_lines(generation(document))


def test_what_a_baseline_left_and_why() -> None:
    image = {"url": "/", "width": 64, "height": 64, "sha256": "", "reward": 0.25}
    result = {"images": [image], "baseline": {"image": image, "nfe_spent": 32, "steps": 8}}
    left = LEFT | {"nfe_spent": 32, "nfe_unspent": 28}
    job = generation(ENDED | {"result": result, "usage": {"nfe_spent": 200, "baseline": left}})
    shown = summary(job, [], Path("trace"))
    assert "best-of-n      0.2500 (32 NFE (28 unspent: the job was canceled), 8 a run)" in shown
    assert "NFE spent      200 of 200\n" in shown


def test_none_is_shown_where_there_is_none() -> None:
    assert "webhook" not in document_lines(generation(DOCUMENT))
