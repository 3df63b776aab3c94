"""Clients and command: a job extended, and a baseline shown."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rollover
from rollover import AsyncClient, Client
from rollover.cli import app
from rollover.display import LiveView, document_lines, quote_lines, save, summary
from rollover.documents import Event
from tests.app.hand import OTHER_PNG, PNG, Hand
from tests.app.test_extend import finished
from tests.rollover.unreliable import unreliable

Hands = Callable[[str], Hand]


def test_a_job_is_extended(server: str, client: Client, hand: Hands) -> None:
    parent = client.submit("a red circle", nfe=150)
    assert parent.parent is None
    with pytest.raises(rollover.ConflictError, match="wrong_state"):
        client.extend(parent.id, 100)
    finished(hand(parent.id))
    child = client.extend(parent.id, 100, patience=30)
    assert child.parent == rollover.Parent(parent.id, 150)
    assert (child.request["budget"]["nfe"], child.request["budget"]["patience"]) == (100, 30)
    assert f"{parent.id}, after 150 NFE" in document_lines(child)
    assert client.extend(parent.id, seconds=5).request["budget"]["nfe"] == 200

    async def again() -> rollover.Generation:
        async with AsyncClient(server) as near:
            return await near.extend(parent.id, 100)

    other = asyncio.run(again())
    assert other.parent == child.parent
    assert other.id != child.id


def test_an_extension_whose_answer_is_lost_is_one_job(server: str, client: Client, hand: Hands) -> None:
    parent = client.submit("a red circle")
    finished(hand(parent.id))
    with unreliable(server, 1) as proxy, Client(proxy.url) as far:
        child = far.extend(parent.id, 100)
    assert [job.id for job in client.list().items] == [child.id, parent.id]


def test_the_command_extends(server: str, client: Client, hand: Hands, tmp_path: Path) -> None:
    parent = client.submit("a red circle")
    arguments = ["extend", parent.id, "--nfe", "4", "--url", server, "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "wrong_state" in result.output
    finished(hand(parent.id))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "at least 5" in result.output


class Bar:
    """What a progress bar is told."""

    completed: float = -1

    def update(self, _task: object, *, completed: float, **_: object) -> None:
        self.completed = completed


def test_the_bar_of_an_extension_begins_at_its_own_beginning() -> None:
    bar = Bar()
    data = {"nfe": 151, "best_reward": 0.5, "level": 3}
    LiveView(bar, 0, before=150).show(Event(1, "candidate", data))  # pyright: ignore[reportArgumentType]
    assert bar.completed == 1


def test_a_baseline_is_shown_and_saved(client: Client, hand: Hands, tmp_path: Path) -> None:
    job = client.submit("a red circle", baseline=True)
    moved = hand(job.id)
    moved.start()
    moved.search(1, 3)
    moved.finish_with_baseline()
    job = client.get(job.id)
    assert job.result
    assert job.result.baseline
    assert (job.result.baseline.image.reward, job.result.baseline.nfe_spent) == (0.25, 50)
    assert client.baseline(job.id) == OTHER_PNG
    images, trace = save(client, job, tmp_path)
    assert [path.read_bytes() for path in images] == [PNG, OTHER_PNG]
    shown = summary(job, images, trace)
    assert re.search(r"^best-of-n +0\.2500 \(50 NFE, 10 a run\)$", shown, re.MULTILINE)
    assert re.search(r"^ +held out: scene_exact +0\.0000$", shown, re.MULTILINE)


def test_the_async_client_reads_a_baseline(server: str, client: Client, hand: Hands) -> None:
    job = client.submit("a red circle", baseline=True)
    moved = hand(job.id)
    moved.start()
    moved.finish_with_baseline()

    async def read() -> bytes:
        async with AsyncClient(server) as near:
            return await near.baseline(job.id)

    assert asyncio.run(read()) == OTHER_PNG


def test_a_quote_with_a_baseline_says_so(client: Client, server: str) -> None:
    lines = quote_lines(client.quote("a red circle", nfe=95, baseline=True))
    assert re.search(r"^best-of-n +9 runs of 10 steps on top$", lines, re.MULTILINE)
    arguments = ["generate", "a red circle", "--url", server, "--nfe", "95", "--baseline", "--quote"]
    assert "9 runs of 10 steps on top" in CliRunner().invoke(app, arguments).output
    assert client.list().items == ()
