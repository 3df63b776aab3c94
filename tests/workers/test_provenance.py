"""What a result says of where it came from must change when that changes."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from models.rewards.protocol import Facts
from models.rewards.scene_exact import SceneExact
from models.rewards.scene_match import SceneMatch
from workers.provenance import code_of, reward_versions


def test_other_weights_are_another_version_of_a_reward(tmp_path: Path) -> None:
    weights = tmp_path / "detector.safetensors"
    weights.write_bytes(b"retrained")

    class Retrained(SceneMatch):
        facts: ClassVar[Facts] = replace(SceneMatch.facts, weights=weights)

    version = reward_versions({"r": Retrained()})["r"]
    weights.write_bytes(b"retrained again")
    assert reward_versions({"r": Retrained()})["r"] != version


def test_a_reward_stands_on_all_the_code_it_takes_names_from() -> None:
    names = {path.stem for path in code_of(SceneExact.__module__)}
    assert {"scene_exact", "judge", "world"} <= names
    assert "detector" not in names
    assert {"scene_match", "detector", "world"} <= {path.stem for path in code_of(SceneMatch.__module__)}
