"""Ways to break a tiny FLUX.1 in its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

VAE = "vae/diffusion_pytorch_model.safetensors"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
WHOLE_SIZE = 200 * 10**9
"""Bytes of a file that no machine here has memory for; nearly all of it is a hole."""


def empty(size: int) -> bytes:
    """The beginning of a safetensors file with one tensor of so many bytes."""
    tensor = {"weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    header = json.dumps(tensor).encode()
    return len(header).to_bytes(8, "little") + header


def drop(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)


def lose_weights(folder: Path) -> None:
    (folder / VAE).unlink()


def cut_off(folder: Path) -> None:
    file = folder / TRANSFORMER
    file.write_bytes(file.read_bytes()[:-10])


def pickle(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))


def lose_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))


def rename_class(folder: Path, **classes: Any) -> None:  # noqa: ANN401
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | classes))


def enlarge(folder: Path) -> None:
    with (folder / TRANSFORMER).open("wb") as file:
        beginning = empty(WHOLE_SIZE)
        file.write(beginning)
        file.truncate(len(beginning) + WHOLE_SIZE)
