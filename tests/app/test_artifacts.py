"""A store that hangs holds up whoever asks for what is in it, and nobody else."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app import artifacts
from app.problems import ProblemError
from contracts.keys import image_path
from tests.app.hand import Hand


@pytest.fixture
def hanging(submit: Callable[..., Hand]) -> Iterator[Hand]:
    """An ended job whose picture is a pipe that nobody writes to: whoever opens it waits."""
    hand = submit()
    hand.start()
    hand.search(1, 2)
    hand.finish()
    path: Path = hand.artifacts / image_path(hand.id, 0, "png")
    path.unlink()
    os.mkfifo(path)
    yield hand
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def test_a_store_that_hangs_is_a_503_and_holds_up_nothing_else(
    client: httpx.Client, hanging: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE", 4.0)
    with ThreadPoolExecutor(3 * artifacts.THREADS) as pool:
        asked = [
            pool.submit(client.get, f"/v1/generations/{hanging.id}/images/0")
            for _ in range(2 * artifacts.THREADS)
        ]
        time.sleep(1.0)
        began = time.monotonic()
        answer = client.post("/v1/generations", json={"prompt": "a red circle"})
        assert answer.status_code == 202
        assert time.monotonic() - began < 2.0
        assert not any(each.done() for each in asked)
        answers = [each.result() for each in asked]
    assert {each.status_code for each in answers} == {503}
    assert {each.json()["code"] for each in answers} == {"storage_unavailable"}


def test_a_job_is_not_forgotten_while_the_store_keeps_files_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = artifacts.Artifacts(str(tmp_path))
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "kept").touch()
    monkeypatch.setattr(store.filesystem, "rm", lambda *_, **__: None)  # as s3fs does where it may not
    with pytest.raises(ProblemError) as caught:
        asyncio.run(store.remove("job"))
    assert caught.value.code == "storage_unavailable"
    store.close()
