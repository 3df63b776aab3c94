"""A backup by docs/operations.md: a copy of the data directory, from which another server goes on."""

import shutil
from pathlib import Path

import pytest

from rollover import Client
from rollover.serve import Stack, StackSettings


def test_a_copy_of_the_data_directory_is_a_backup(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
    monkeypatch.setenv("ROLLOVER_DEVICE", "cpu")
    first, second = tmp_path / "first", tmp_path / "second"
    with Stack(StackSettings(port=0, data_dir=first), print) as stack, Client(stack.url) as client:
        done = client.submit("a red circle", reward="brightness", held_out=[], nfe=60)
        assert client.wait(done.id, within=60).status == "succeeded"
        document, picture = client.get(done.id).raw, client.image(done.id)
        stopped = client.submit("a red circle", reward="brightness", held_out=[], nfe=400)
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    shutil.rmtree(first)
    with Stack(StackSettings(port=0, data_dir=second), print) as stack, Client(stack.url) as client:
        assert client.get(done.id).raw == document
        assert client.image(done.id) == picture
        ended = client.wait(stopped.id, within=120)
        assert (ended.status, ended.usage["nfe_spent"]) == ("succeeded", 400)
        events = list(client.events(stopped.id))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
