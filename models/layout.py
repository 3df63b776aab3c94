"""Which files of a repository in diffusers' layout a model needs, by index and names. Needs no library."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INDEXES = ("model_index.json", "modular_model_index.json")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
BESIDES = frozenset({".json", ".txt", ".model", ".jinja"})
"""Configurations, vocabularies and templates."""
MAIN_WEIGHTS = re.compile(r"[^.]+\.safetensors(\.index\.json)?")
"""Weights that are loaded where no variant is asked for: `model.fp16.safetensors` is a variant."""


def index_of(folder: Path) -> dict[str, Any] | None:
    """A model's index; None: there is none, or it cannot be read."""
    for name in INDEXES:
        try:
            index = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(index, dict):
            return index
    return None


def components(index: Mapping[str, Any]) -> list[str]:
    """The components that a repository's index gives a class, which are the names of their folders."""
    return [
        name
        for name, spec in index.items()
        if not name.startswith("_") and isinstance(spec, list) and any(spec)
    ]


def wanted(names: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Of a repository's files those that are needed: its indexes, and of each component all but pickles.

    Args:
        names: paths in the repository, with slashes.
        folders: its components.
    """
    folders = frozenset(folders)
    return sorted(name for name in names if name in INDEXES or is_needed(name, folders))


def is_needed(name: str, folders: frozenset[str]) -> bool:
    """Whether a file belongs to a component and is no pickle, no variant and no other format's."""
    folder, _, file = name.rpartition("/")
    if folder not in folders:
        return False
    return is_main_weights(file) if ".safetensors" in file else f".{file.rpartition('.')[2]}" in BESIDES


def is_main_weights(file: str) -> bool:
    """Whether a file's name is that of weights, or their index, which are loaded by default."""
    return MAIN_WEIGHTS.fullmatch(file) is not None


def pickled(names: Iterable[str], folders: Iterable[str]) -> dict[str, list[str]]:
    """For each component whose weights are pickles and nothing else, their names."""
    paths = [name.rpartition("/") for name in names]
    found: dict[str, list[str]] = {}
    for folder in folders:
        files = [file for place, _, file in paths if place == folder]
        pickles = [file for file in files if f".{file.rpartition('.')[2]}" in PICKLES]
        if pickles and not any(is_main_weights(file) for file in files):
            found[folder] = sorted(pickles)
    return found
