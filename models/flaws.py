"""What is wrong with a model's folder, in words that say what to do. By names and headers; loads nothing."""

import json
from pathlib import Path
from typing import Any

from models.layout import INDEXES, PICKLES, components, index_of, is_main_weights
from models.weights import BrokenFileError, header

WEIGHTLESS = ("Tokenizer", "Processor", "Scheduler", "Extractor", "Guidance")
"""In the names of classes that have no weights."""


def flaws(folder: Path) -> list[str]:
    """Everything that names and headers tell of; empty: nothing."""
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    index = index_of(folder)
    if index is None:
        return [f"{folder} has no {INDEXES[0]} that can be read; fetch the repository again"]
    names = [
        name for name in components(index) if (folder / name).is_dir() or not from_elsewhere(index[name])
    ]
    found = {name: flaw(folder / name, weights=has_weights(index[name])) for name in names}
    return [f"{name}: {said}" for name, said in found.items() if said]


def from_elsewhere(spec: list[Any]) -> bool:
    """Whether an index's entry may name another repository, as those of modular pipelines do."""
    return len(spec) > 2


def has_weights(spec: list[Any]) -> bool:
    """Whether an index's entry is of a class that has weights."""
    return not any(word in str(spec[1]) for word in WEIGHTLESS)


def flaw(folder: Path, *, weights: bool = False) -> str | None:
    """What is wrong with a component's folder; None: nothing that names and headers tell.

    Args:
        folder: of the component.
        weights: whether it must have weights.
    """
    if not folder.is_dir():
        return f"there is no folder {folder}; fetch the repository again"
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    files = [file for file in sorted(folder.glob("*.safetensors")) if is_main_weights(file.name)]
    if pickled and not files:
        return (
            f"{folder} has only pickles ({', '.join(pickled)}), which can run code and are never read; "
            "fetch a revision with safetensors, or save it as such"
        )
    if weights and not files:
        return f"{folder} has no weights; fetch the repository again"
    lost = lost_shards(folder)
    if lost:
        return f"{folder} lacks {', '.join(lost)}, which its index names; fetch the rest"
    for file in files:
        try:
            header(file)
        except BrokenFileError as error:
            return f"{error}; fetch it again"
    return None


def lost_shards(folder: Path) -> list[str]:
    """Files of weights that a component's index names and that are not there."""
    named: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        if is_main_weights(index.name):
            named |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(name for name in named if not (folder / name).is_file())
