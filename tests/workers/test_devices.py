"""Which device a model goes to."""

import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from contracts.models import ENTRIES
from models.backend import ModelLoadError
from tests.workers.breaking import enlarge
from workers.devices import usable
from workers.engine import Engine
from workers.settings import WorkerSettings


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert usable("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "xpu:0"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"no device '{name}' for this torch .*; there are cpu") as error:
        usable(name)
    assert "Set ROLLOVER_DEVICE, or `device` in the catalogue" in str(error.value)


def test_the_device_of_an_entry_wins_over_the_workers(tiny_model: Path) -> None:
    entries = {"shapes": ENTRIES["shapes"].model_copy(update={"device": "cuda:99"})}
    with pytest.raises(ModelLoadError, match="no device 'cuda:99'"):
        Engine.load("shapes", WorkerSettings(device="cpu", model_paths={"shapes": tiny_model}), {}, entries)
    entries = {"shapes": ENTRIES["shapes"].model_copy(update={"device": "cpu"})}
    settings = WorkerSettings(device="cuda:99", model_paths={"shapes": tiny_model})
    assert Engine.load("shapes", settings, {}, entries).device == torch.device("cpu")


def test_a_model_that_the_device_has_no_room_for_is_refused_before_it_is_read(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "large")
    enlarge(folder)
    with pytest.raises(ModelLoadError, match=r"not enough memory on cpu: it takes about 4\d\d.\d GB and"):
        Engine.load("shapes", WorkerSettings(device="cpu", model_paths={"shapes": folder}))


def test_a_reward_is_made_on_its_own_device(tiny_model: Path) -> None:
    given = {"device": "cpu", "model_paths": {"shapes": tiny_model}, "reward_devices": "sharpness=cpu:0"}
    engine = Engine.load("shapes", WorkerSettings.model_validate(given))
    assert vars(engine.reward("sharpness"))["device"] == torch.device("cpu:0")
    assert vars(engine.reward("brightness"))["device"] == torch.device("cpu")


def test_a_device_that_is_not_there_stops_the_worker(tiny_model: Path) -> None:
    given = {"device": "cpu", "model_paths": {"shapes": tiny_model}, "reward_devices": "sharpness=cuda:99"}
    with pytest.raises(ModelLoadError, match=r"no device 'cuda:99' .* Set ROLLOVER_REWARD_DEVICES"):
        Engine.load("shapes", WorkerSettings.model_validate(given))


def test_a_device_for_what_is_no_reward_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no reward 'pick_score'\. Did you mean 'pickscore'\?"):
        WorkerSettings.model_validate({"reward_devices": "pick_score=cpu"})
