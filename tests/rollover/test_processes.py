"""A child's log: what it holds, and that it does not grow for ever."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollover.processes import Child, Command
from rollover.serve import EARLY_LIMIT, Stack, StackError, StackSettings

LIMIT = 20_000
TALKS = """
import itertools, os, time
for n in itertools.count():
    os.write(1, f"{n} {n:090}\\n".encode())
    time.sleep(0.0001)
"""
TALKS_AND_ENDS = "import time\nfor n in range(1000): print(n, 'x' * 90)\ntime.sleep(0.5)\nraise SystemExit(1)"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollover.processes.LOG_BYTES", LIMIT)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Start a program of Python."""
    started: list[Child] = []

    def begin(program: str) -> Child:
        arguments = [sys.executable, "-u", "-c", program]
        started.append(Child(Command("it", arguments, dict(os.environ), tmp_path / "it.log", 1)))
        return started[-1]

    yield begin
    for child in started:
        child.kill()


def numbers(log: Path) -> list[int]:
    """The number that each line begins with."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()]


def test_a_log_is_moved_under_a_child_that_goes_on_writing(
    start: Callable[[str], Child], tmp_path: Path
) -> None:
    log, older = tmp_path / "it.log", tmp_path / "it.log.1"
    child = start(TALKS)
    end = time.monotonic() + 60
    while not older.exists() or numbers(older)[0] < 1000:
        child.shorten_log()
        assert time.monotonic() < end
    while log.stat().st_size < LIMIT / 2:
        assert time.monotonic() < end
    child.kill()
    assert older.stat().st_size < 2 * LIMIT
    found = numbers(older) + numbers(log)
    assert found == sorted(found)
    assert child.last_lines().splitlines()[-1].startswith(str(found[-1]))


def test_what_it_wrote_last_is_told_from_where_it_was_moved(
    start: Callable[[str], Child], tmp_path: Path
) -> None:
    (tmp_path / "it.log").write_text("of another\n" * 10)
    child = start(TALKS_AND_ENDS)
    while child.exit_code() is None:
        time.sleep(0.01)
    child.shorten_log()
    assert not (tmp_path / "it.log").read_text()
    assert child.last_lines().splitlines()[-1].startswith("999 ")


def test_where_there_is_no_room_to_move_it_the_log_is_emptied_all_the_same(
    start: Callable[[str], Child], tmp_path: Path
) -> None:
    (tmp_path / "it.log.1").mkdir()
    child = start(TALKS)
    while (tmp_path / "it.log").stat().st_size <= LIMIT:
        time.sleep(0.01)
    child.kill()
    child.shorten_log()
    assert not (tmp_path / "it.log").stat().st_size
    assert child.last_lines() == ""


def test_a_log_that_somebody_removed_stops_nobody(start: Callable[[str], Child], tmp_path: Path) -> None:
    child = start("")
    (tmp_path / "it.log").unlink()
    child.shorten_log()


def test_a_stack_that_watches_keeps_logs_short(start: Callable[[str], Child], tmp_path: Path) -> None:
    stack = Stack(StackSettings(), lambda _: None)
    stack._children.append(start(TALKS_AND_ENDS))  # noqa: SLF001 -- no other part of it is needed
    stack._early["it"] = EARLY_LIMIT - 1  # noqa: SLF001 -- it has ended itself before
    with pytest.raises(StackError, match=r"(?s)it exited with code 1.*\n999 x"):
        stack.watch()
    assert (tmp_path / "it.log").stat().st_size <= LIMIT
