"""A reward's weights in a local folder, laid out as on the Hugging Face hub. Nothing is downloaded here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from models.rewards.pixels import Fit, Preprocessing
from models.rewards.protocol import Facts, RewardLoadError

NetworkT = TypeVar("NetworkT", bound=PreTrainedModel)
TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")


def needed(folder: Path | None, name: str, facts: Facts) -> Path:
    """The folder with a reward's weights.

    Raises:
        RewardLoadError: none was given, or there is none; it says how to make one.
    """
    commands = "; ".join(f"`{command(what)}`" for what in facts.fetch)
    if facts.then:
        commands += f"; then `{facts.then}`"
    remedy = f"fetch them ({commands}) and set ROLLOVER_REWARD_PATHS={name}=FOLDER"
    if folder is None:
        raise RewardLoadError(f"reward '{name}' has no weights on this server: {remedy}")
    if not folder.is_dir():
        raise RewardLoadError(f"reward '{name}' has no weights, there is no folder {folder}: {remedy}")
    return folder


def command(what: str) -> str:
    """What to type to fetch an entry of `facts.fetch`."""
    return f"hf download {what}" + ("" if "FOLDER" in what else " --local-dir FOLDER")


def load_network(
    network: type[NetworkT],
    folder: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> NetworkT:
    """A frozen network with every weight from safetensors.

    transformers fills weights that a file lacks with random numbers and a log line.

    Args:
        network: transformers' class.
        folder: with its `config.json` and its weights.
        device: where it shall run.
        dtype: of its weights.
        rename: the network's weights from those of `model.safetensors`, where another program saved them.

    Raises:
        RewardLoadError: files are missing, corrupt, of another network, or pickles only.
    """
    require(folder, "config.json")
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    source: Path | None = folder
    # transformers types both by what they may be in other classes, and with other options.
    anything: Any = network
    try:
        if rename:
            options["state_dict"] = rename(load_file(folder / "model.safetensors"))
            options["config"] = anything.config_class.from_pretrained(folder, local_files_only=True)
            source = None
        loaded, info = anything.from_pretrained(source, output_loading_info=True, **options)
    except Exception as error:  # transformers raises whatever its parts raise
        raise RewardLoadError(unloadable(folder, network.__name__, one_line(error))) from error
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:3])
        raise RewardLoadError(unloadable(folder, network.__name__, f"the weights lack {lacking}"))
    return loaded.to(device).eval().requires_grad_(requires_grad=False)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Raises RewardLoadError."""
    require(folder, *TOKENIZERS)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its parts raise
        raise RewardLoadError(unloadable(folder, "tokenizer", one_line(error))) from error


def load_preprocessing(folder: Path, fit: Fit | None = None) -> Preprocessing:
    """What the folder's `preprocessor_config.json` describes, fitted otherwise where `fit` is given.

    Raises:
        RewardLoadError: it is missing, broken, or describes what we cannot do.
    """
    try:
        return Preprocessing.of(preprocessor_config(folder), fit)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RewardLoadError(unloadable(folder, "preprocessor_config.json", one_line(error))) from error


def preprocessor_config(folder: Path) -> dict[str, Any]:
    """The file's content, or the part of `processor_config.json` that takes its place in newer folders."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]


def require(folder: Path, *names: str) -> None:
    """Raise RewardLoadError where none of some files is there: transformers would take its own defaults."""
    if not any((folder / name).is_file() for name in names):
        raise RewardLoadError(f"{folder} has no {' or '.join(names)}")


def unloadable(folder: Path, what: str, why: str) -> str:
    """Say what could not be loaded from where, and why."""
    return f"{folder}: {what} could not be loaded (weights only from safetensors, never pickle): {why}"


def one_line(error: Exception) -> str:
    """An error's text in one line, which is all that a client is shown."""
    return " ".join(str(error).split()) or type(error).__name__
