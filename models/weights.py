"""What lies in safetensors files, from their headers: nothing is loaded, and no library is needed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from models.layout import components, index_of, is_main_weights

LONGEST_HEADER = 100 * 2**20


class BrokenFileError(ValueError):
    """A file is cut off, or no safetensors."""


@dataclass(frozen=True)
class Weights:
    """The weights of one network.

    Attributes:
        parameters: how many numbers.
        size: in bytes, as stored.
    """

    parameters: int
    size: int


def weights_of(folder: Path) -> Weights | None:
    """The weights in a component's folder; None: it has none.

    Raises:
        BrokenFileError: a file is cut off, or no safetensors.
    """
    files = [file for file in sorted(folder.glob("*.safetensors")) if is_main_weights(file.name)]
    tensors = [tensor for file in files for tensor in header(file).values()]
    if not files:
        return None
    return Weights(
        parameters=sum(prod(tensor["shape"]) for tensor in tensors),
        size=sum(tensor["data_offsets"][1] - tensor["data_offsets"][0] for tensor in tensors),
    )


def parameters_of(folder: Path) -> dict[str, int]:
    """How many numbers each network in a model's folder has, by its name.

    Of a repository these are the components that its index names: it may have the same weights once more
    beside them, for other programs. A folder without an index is of a backend that knows its own.

    Raises:
        BrokenFileError: a file is cut off, or no safetensors.
    """
    index = index_of(folder)
    parts = sorted(part.name for part in folder.iterdir() if part.is_dir())
    found = {name: weights_of(folder / name) for name in parts if index is None or name in components(index)}
    return {name: weights.parameters for name, weights in found.items() if weights}


def header(file: Path) -> Mapping[str, Any]:
    """Type, shape and place of each tensor by name.

    Raises:
        BrokenFileError: the file is cut off, or no safetensors.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= LONGEST_HEADER else b""
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFileError(f"{file} is cut off, or no safetensors file") from error
    held = file.stat().st_size - 8 - length
    if held != end:
        raise BrokenFileError(f"{file} is not whole: it holds {held} bytes of weights, and names {end}")
    return tensors
