"""What a repository's index may have loaded: it comes with the repository, whoever made that."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from models.backend import ModelLoadError
from models.modular import ModularBackend


@pytest.fixture
def folder(tmp_path: Path, tiny_flux: Path) -> Path:
    """A tiny FLUX.1 to break."""
    return Path(shutil.copytree(tiny_flux, tmp_path / "flux"))


@pytest.fixture
def pickles_read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What `torch.load` was called with."""
    read: list[object] = []

    def load(file: object, *_: object, **__: object) -> dict[str, Any]:
        read.append(file)
        return {}

    monkeypatch.setattr(torch, "load", load)
    return read


def load(folder: Path) -> ModularBackend:
    return ModularBackend.load(folder, device="cpu", dtype=torch.float32)


def index_of(folder: Path) -> dict[str, list[str]]:
    index = json.loads((folder / "model_index.json").read_text())
    return {name: classes for name, classes in index.items() if isinstance(classes, list)}


def write_modular_index(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """An index of the modular kind: each component says where it is."""
    components = {
        name: [
            *classes,
            {
                "type_hint": classes,
                "pretrained_model_name_or_path": str(folder),
                "subfolder": name,
                "variant": None,
                "revision": None,
                **changes.get(name, {}),
            },
        ]
        for name, classes in index_of(folder).items()
    }
    index = {"_class_name": "FluxModularPipeline", "_blocks_class_name": "FluxAutoBlocks", **components}
    (folder / "modular_model_index.json").write_text(json.dumps(index))


def test_a_modular_index_loads(folder: Path) -> None:
    write_modular_index(folder, {})
    session = load(folder).prepare("two red circle", 32, 32)
    assert torch.isfinite(session.velocity(torch.ones(1, *session.latent_shape), torch.ones(1))).all()


def test_a_network_in_place_of_a_part_is_refused_and_no_pickle_read(
    folder: Path, pickles_read: list[object]
) -> None:
    bert = BertModel(
        BertConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )
    bert.config.save_pretrained(folder / "scheduler")
    torch.save(bert.state_dict(), folder / "scheduler" / "pytorch_model.bin")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"scheduler": ["transformers", "BertModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(
        ModelLoadError,
        match=r"scheduler should be a FlowMatchEulerDiscreteScheduler or SchedulerMixin, and its index names "
        r"BertModel: fetch the index and the folders of one repository",
    ):
        load(folder)
    assert not pickles_read


@pytest.mark.parametrize(
    ("part", "named", "complaint"),
    [
        ("scheduler", ["subprocess", "Popen"], "scheduler should be a .* names Popen: fetch the index"),
        (
            "scheduler",
            ["subprocess", "check_output"],
            r"(should be a .* names check_output|no repository that)",
        ),
        ("scheduler", ["transformers", "CLIPTokenizer"], "scheduler should be a .* names CLIPTokenizer"),
        ("tokenizer", ["diffusers", "DDIMScheduler"], "tokenizer should be a CLIPTokenizer or PreTrainedTok"),
        (
            "tokenizer_2",
            ["transformers", "T5EncoderModel"],
            "tokenizer_2 should be a .* names T5EncoderModel",
        ),
        ("scheduler", [None, None], "scheduler should be a .* names nothing"),
    ],
)
@pytest.mark.parametrize("kind", ["modular", "plain"])
def test_a_class_that_is_no_such_part_is_refused(
    folder: Path, part: str, named: list[str], complaint: str, kind: str
) -> None:
    if kind == "modular":
        write_modular_index(folder, {part: {"type_hint": named}})
    else:
        index = json.loads((folder / "model_index.json").read_text()) | {part: named}
        (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match=complaint):
        load(folder)


@pytest.mark.parametrize("part", ["scheduler", "tokenizer", "vae"])
@pytest.mark.parametrize(
    "place",
    [
        {"pretrained_model_name_or_path": "/etc", "subfolder": ""},
        {"subfolder": "../other"},
        {"pretrained_model_name_or_path": "somebody/else"},
    ],
)
def test_a_component_from_outside_the_folder_is_refused(
    folder: Path, part: str, place: dict[str, str]
) -> None:
    shutil.copytree(folder / part, folder.parent / "other")
    shutil.rmtree(folder / part)
    write_modular_index(folder, {part: place})
    with pytest.raises(
        ModelLoadError, match=rf"its index takes {part} from .*, outside of that folder: fetch a repository"
    ):
        load(folder)


def test_a_component_that_the_index_leaves_out_is_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["scheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="its index does not mention scheduler: fetch the repository"):
        load(folder)
