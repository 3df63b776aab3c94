"""The one form of every process's log."""

import json
import logging
import subprocess
import sys
import threading
from contextvars import copy_context
from pathlib import Path

import pytest

from contracts.logs import JsonFormatter, bound, fact

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lines() -> list[dict[str, object]]:
    return []


@pytest.fixture
def logger(lines: list[dict[str, object]]) -> logging.Logger:
    """A logger whose lines are kept as they would be written."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    logger = logging.Logger("a.logger")  # noqa: LOG001 -- this test's own
    handler = Keep()
    handler.setFormatter(JsonFormatter({"worker": "w1"}))
    logger.addHandler(handler)
    return logger


def test_lines_name_the_work_at_hand_and_only_that(
    logger: logging.Logger, lines: list[dict[str, object]]
) -> None:
    with bound(generation="gen_1", request=None):
        with bound(attempt=2, generation="gen_2"):
            logger.info("within %d", 1, extra={"facts": {"seconds": 0.5}})
        logger.warning("between")
    logger.info("after")
    for line in lines:
        del line["at"]
    own = {"logger": "a.logger", "worker": "w1"}
    within = {"message": "within 1", "generation": "gen_2", "attempt": 2, "seconds": 0.5}
    assert lines == [
        {"level": "info", **own, **within},
        {"level": "warning", **own, "message": "between", "generation": "gen_1"},
        {"level": "info", **own, "message": "after"},
    ]


def test_the_time_is_utc_and_a_trace_is_one_line(
    logger: logging.Logger, lines: list[dict[str, object]]
) -> None:
    try:
        int("two\nlines")
    except ValueError:
        logger.exception("failed")
    assert str(lines[0]["at"]).endswith("Z")
    assert "Traceback" in str(lines[0]["exception"])


def test_a_thread_knows_the_work_of_the_context_it_runs_in() -> None:
    found: list[str | None] = []
    with bound(request="r1"):
        here = copy_context().run
    for target in (
        lambda: here(lambda: found.append(fact("request"))),
        lambda: found.append(fact("request")),
    ):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert found == ["r1", None]


def test_a_process_writes_json_alone() -> None:
    program = (
        "import logging, warnings; from contracts.logs import configure;"
        "library = logging.getLogger('library');"
        "library.addHandler(logging.StreamHandler()); library.propagate = False; configure(worker='w1');"
        "logging.getLogger('other').info('up %s', 1); logging.getLogger('x').warning('two\\nlines');"
        "library.warning('its own'); warnings.warn('beware')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["message"] for line in lines[:-1]] == ["up 1", "two\nlines", "its own"]
    assert "beware" in lines[-1]["message"]
    assert {line["worker"] for line in lines} == {"w1"}
