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
    heavy = "{'diffusers', 'transformers', 'PIL'}"
    program = f"import sys, models.registry; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_entry_is_an_import_path() -> None:
    assert all(path.startswith("models.rewards.") and ":" in path for path in REWARDS.values())
