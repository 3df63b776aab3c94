"""A store that hangs holds up whoever asks for what is in it, and nobody else."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app import artifacts
from app.problems import ProblemError
from contracts.keys import image_path
from tests.app.hand import Hand
from tests.disk import Disk


@dataclass
class Pipe:
    """An ended job whose picture is a pipe: whoever opens it waits until somebody writes to it."""

    url: str
    path: Path

    def let_go(self) -> None:
        """Have those who wait read nothing."""
        os.close(os.open(self.path, os.O_RDWR | os.O_NONBLOCK))

    def remove(self) -> None:
        """Have nobody wait, not even who opens it only now."""
        end = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.path.unlink()
        os.close(end)


@pytest.fixture
def pipe(submit: Callable[..., Hand]) -> Iterator[Pipe]:
    hand = submit()
    hand.start()
    hand.search(1, 2)
    hand.finish()
    path: Path = hand.artifacts / image_path(hand.id, 0, "png")
    path.unlink()
    os.mkfifo(path)
    pipe = Pipe(f"/v1/generations/{hand.id}/images/0", path)
    yield pipe
    pipe.remove()


def test_a_store_that_hangs_holds_up_nothing_else(
    client: httpx.Client, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE", 60.0)
    with ThreadPoolExecutor(2 * artifacts.THREADS) as pool:
        asked = [pool.submit(client.get, pipe.url) for _ in range(2 * artifacts.THREADS)]
        time.sleep(0.5)
        answer = client.post("/v1/generations", json={"prompt": "a red circle"})
        waiting = [each for each in asked if not each.done()]
        while not all(each.done() for each in asked):
            pipe.let_go()
            time.sleep(0.02)
    assert answer.status_code == 202
    assert waiting == asked


def test_a_store_that_does_not_answer_is_a_503(
    client: httpx.Client, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE", 0.2)
    answer = client.get(pipe.url)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["retry-after"]


def test_what_is_written_or_copied_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = artifacts.Artifacts(str(tmp_path))
    disk = Disk.watched(monkeypatch)
    asyncio.run(store.write("gen/inputs/image.png", b"content"))
    assert asyncio.run(store.copy("gen/inputs/image.png", "child/inputs/image.png"))
    for path in ("gen/inputs/image.png", "child/inputs/image.png"):
        assert disk.has(tmp_path, path)
        assert (tmp_path / path).read_bytes() == b"content"
    assert not asyncio.run(store.copy("gen/none", "child/none"))
    store.close()


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


def test_a_folder_goes_whole_though_another_removes_files_of_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gen"
    folder.mkdir()
    files = [folder / name for name in "abc"]
    for file in files:
        file.touch()
    store = artifacts.Artifacts(str(tmp_path))
    remove = store.filesystem.rm

    def beside_another(path: str, *, recursive: bool) -> None:
        if files:
            files.pop().unlink()
            raise FileNotFoundError(path)
        remove(path, recursive=recursive)

    monkeypatch.setattr(store.filesystem, "rm", beside_another)
    asyncio.run(store.remove("gen"))
    assert not folder.exists()
    asyncio.run(store.remove("gen"))  # and what is gone may go again
    store.close()
