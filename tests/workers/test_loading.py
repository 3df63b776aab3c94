"""From an entry of a catalogue to what is loaded."""

from pathlib import Path

import pytest
import torch

from contracts.models import ENTRIES, Entry
from models.backend import ModelLoadError
from workers.loading import source_of

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's folder on this machine, with one repository as `hf download` leaves it."""
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "model_index.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def entry(**fields: object) -> Entry:
    """The bundled entry with another source."""
    return ENTRIES["shapes"].model_copy(update={"folder": None, **fields})


def test_options_are_those_of_the_entry(tmp_path: Path) -> None:
    options = {"dtype": "bfloat16", "quantisation": "fp8", "offload": "group", "inputs": {"mu": 1}}
    source = source_of("id", entry(folder=tmp_path, vae_tiling=True, compile=True, **options))
    assert (source.folder, source.dtype) == (tmp_path, torch.bfloat16)
    assert (source.quantisation, source.offload) == ("fp8", "group")
    assert (source.vae_tiling, source.compiled, source.inputs) == (True, True, {"mu": 1})


def test_a_folder_in_place_of_the_entrys_own(tmp_path: Path) -> None:
    assert source_of("shapes", ENTRIES["shapes"], tmp_path).folder == tmp_path


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_repository_is_found_where_it_was_downloaded(hub: Path, revision: str | None) -> None:
    source = source_of("id", entry(repository="some/model", revision=revision))
    assert source.folder == hub / "models--some--model" / "snapshots" / COMMIT


@pytest.mark.parametrize(
    "fields", [{"repository": "some/other"}, {"repository": "some/model", "revision": "v2"}]
)
@pytest.mark.usefixtures("hub")
def test_a_repository_that_is_not_there_is_not_fetched(fields: dict[str, str]) -> None:
    said = f"{fields['repository']} is not on this machine: fetch it with `rollover models pull my-id`"
    with pytest.raises(ModelLoadError, match=said):
        source_of("my-id", entry(**fields))
