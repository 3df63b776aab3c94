"""Which files a model needs, and what lies in them, by names and headers alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.flaws import flaws
from models.layout import components, pickled, wanted
from models.sizes import readable
from models.weights import BrokenFileError, Weights, parameters_of, weights_of

INDEX = {
    "_class_name": "FluxPipeline",
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "image_encoder": [None, None],
    "is_distilled": True,
}
NEEDED = [
    "model_index.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/spiece.model",
    "tokenizer/chat_template.jinja",
    "transformer/diffusion_pytorch_model.safetensors",
]
NOT_NEEDED = [
    "README.md",
    "flux1-dev.safetensors",
    "text_encoder/model.fp16-00001-of-00002.safetensors",
    "text_encoder/model.safetensors.index.fp16.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder/onnx/config.json",
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    "transformer/model.onnx",
    "image_encoder/model.safetensors",
    "safety_checker/model.safetensors",
]


def test_only_what_components_load_is_needed() -> None:
    parts = components(INDEX)
    assert parts == ["transformer", "text_encoder", "tokenizer"]
    assert wanted(NEEDED + NOT_NEEDED, parts) == sorted(NEEDED)


def test_a_component_with_pickles_alone_is_found() -> None:
    names = [
        "a/config.json",
        "a/x.bin",
        "a/y.fp16.safetensors",
        "b/x.bin",
        "b/x.safetensors",
        "c/config.json",
    ]
    assert pickled(names, ["a", "b", "c"]) == {"a": ["x.bin"]}


def test_weights_are_counted_over_all_files_but_variants(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4, dtype=torch.bfloat16)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(5), "c": torch.zeros(())}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"a": torch.zeros(100)}, tmp_path / "model.fp16.safetensors")
    assert weights_of(tmp_path) == Weights(parameters=12 + 5 + 1, size=24 + 20 + 4)
    assert weights_of(tmp_path / "none") is None


def test_of_a_repository_only_what_its_index_names_is_counted(tmp_path: Path) -> None:
    for name in ("transformer", "text_encoder", "text_encoders"):
        (tmp_path / name).mkdir()
        save_file({"a": torch.zeros(len(name))}, tmp_path / name / "model.safetensors")
    index = {**INDEX, "vae": ["diffusers", "AutoencoderKL", {"pretrained_model_name_or_path": "some/other"}]}
    (tmp_path / "modular_model_index.json").write_text(json.dumps(index))
    assert parameters_of(tmp_path) == {"text_encoder": 12, "transformer": 11}
    # The folders of a backend of one's own need none.
    (tmp_path / "modular_model_index.json").unlink()
    assert parameters_of(tmp_path) == {"text_encoder": 12, "text_encoders": 13, "transformer": 11}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda whole: whole[:4], "is cut off, or no safetensors file"),
        (lambda whole: whole[:20], "is cut off, or no safetensors file"),
        (lambda whole: whole[:-1], "is not whole: it holds 19 bytes of weights, and names 20"),
        (lambda whole: whole + b"0", "it holds 21 bytes of weights, and names 20"),
        (lambda _: b"\xff" * 100, "no safetensors file"),
        (lambda _: (2).to_bytes(8, "little") + b"[]", "no safetensors file"),
        (lambda _: (7).to_bytes(8, "little") + json.dumps({"a": 1}).encode(), "no safetensors file"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, broken: Callable[[bytes], bytes], said: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(5)}, file)
    file.write_bytes(broken(file.read_bytes()))
    with pytest.raises(BrokenFileError, match=f"model.safetensors .*{said}|model.safetensors {said}"):
        weights_of(tmp_path)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (57.7e9, "57.7 GB"), (2e15, "2000.0 TB")],
)
def test_sizes_read_as_people_say_them(size: float, text: str) -> None:
    assert readable(size) == text


def test_a_component_may_lie_elsewhere_where_a_modular_index_says_so(tmp_path: Path) -> None:
    parts: dict[str, list[object]] = {
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "Scheduler"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    assert [said.partition(":")[0] for said in flaws(tmp_path)] == ["vae", "scheduler"]
    parts["vae"].append({"pretrained_model_name_or_path": "some/other"})
    (tmp_path / "model_index.json").rename(tmp_path / "modular_model_index.json").write_text(
        json.dumps(parts)
    )
    assert [said.partition(":")[0] for said in flaws(tmp_path)] == ["scheduler"]
