import subprocess
import sys
from pathlib import Path

import pytest

from models.backend import ModelLoadError
from models.registry import (
    BACKENDS,
    REWARDS,
    ModelSource,
    UnknownNameError,
    imported,
    load_model,
    load_reward,
)
from models.rewards.protocol import RewardLoadError


def test_every_backend_exists() -> None:
    assert all(callable(imported(path).load) for path in BACKENDS.values())


def test_an_unknown_reward_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no reward 'colourfulness'; did you mean colorfulness\?"):
        load_reward("colourfulness")


def test_a_name_like_none_is_answered_with_them_all() -> None:
    with pytest.raises(UnknownNameError, match=r"known are aesthetic, .* sharpness"):
        load_reward("zzz")


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    source = ModelSource(folder=tmp_path, backend="modula")
    with pytest.raises(UnknownNameError, match=r"no backend 'modula'; did you mean modular\?"):
        load_model(source)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="gone"):
        load_model(ModelSource(folder=tmp_path / "gone"))


def test_the_tables_load_no_model_library() -> None:
    heavy = "{'diffusers', 'transformers'}"
    program = f"import sys, models.registry; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_entry_is_an_import_path() -> None:
    assert all(path.startswith("models.rewards.") and ":" in path for path in REWARDS.values())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings three backends and no code that can be imported."""
    metadata = tmp_path / "odd-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[rollover.backends]\nodd = odd_but_missing:Odd\nempty = json:Odd\nmodular = json:loads\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_backend_whose_package_is_broken_is_told_and_stops_no_other(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"'odd': odd_but_missing:Odd of an installed package cannot be"):
        load_model(ModelSource(folder=tmp_path, backend="odd"))
    with pytest.raises(ModelLoadError, match="AttributeError"):
        load_model(ModelSource(folder=tmp_path, backend="empty"))
    with pytest.raises(ModelLoadError, match="gone"):
        load_model(ModelSource(folder=tmp_path / "gone"))


@pytest.mark.parametrize("factory", ["odd_but_missing:Odd", "json:Odd", "json:loads"])
def test_a_packages_reward_that_cannot_be_made_is_told_by_its_name(factory: str) -> None:
    with pytest.raises(RewardLoadError, match=f"reward 'odd': {factory} of an installed package cannot be"):
        load_reward("odd", factory=factory)
