"""What a result says of where it came from must change when that changes."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from models.rewards.protocol import Facts
from models.rewards.scene_exact import SceneExact
from models.rewards.scene_match import SceneMatch
from workers.provenance import code_of, file_sha256, reward_versions


def test_other_weights_are_another_version_of_a_reward(tmp_path: Path) -> None:
    weights = tmp_path / "detector.safetensors"
    weights.write_bytes(b"retrained")

    class Retrained(SceneMatch):
        facts: ClassVar[Facts] = replace(SceneMatch.facts, weights=weights)

    version = reward_versions({"r": Retrained()})["r"]
    weights.write_bytes(b"retrained again")
    assert reward_versions({"r": Retrained()})["r"] != version


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"trained")
    first = file_sha256(weights)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", None)
        assert file_sha256(weights) == first
    weights.write_bytes(b"changed")
    os.utime(weights, ns=(1, 1))  # two writes may fall into one tick of the file system's clock
    assert file_sha256(weights) == hashlib.sha256(b"changed").hexdigest()


def test_a_reward_stands_on_all_the_code_it_takes_names_from() -> None:
    names = {path.stem for path in code_of(SceneExact.__module__)}
    assert {"scene_exact", "judge", "world"} <= names
    assert "detector" not in names
    assert {"scene_match", "detector", "world"} <= {path.stem for path in code_of(SceneMatch.__module__)}
