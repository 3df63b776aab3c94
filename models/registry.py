"""Every backend and reward by name: closed tables of import paths; nothing loads until asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from models.backend import FlowBackend, ModelLoadError
from models.rewards.protocol import Reward, RewardLoadError

EntryT = TypeVar("EntryT")


class UnknownNameError(LookupError):
    """A model, backend or reward that is not in the registry; the message gives the nearest known names."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model is and how it is loaded.

    Attributes:
        folder: in the diffusers layout.
        backend: a name of `backends()`.
        dtype: type of the weights once loaded, whatever they are stored as.
        quantisation: of the transformer's weights, which compute in `dtype`; in `models.quantisation`.
        offload: where networks lie that do not compute; in `models.offload`.
        vae_tiling: whether large pictures are decoded in tiles.
        compiled: whether the transformer's blocks are compiled, in `models.compilation`.
        inputs: values for the family's own block inputs.
        image: whether prompts come with an image: "none", "optional" or "required".
    """

    folder: Path
    backend: str = "modular"
    dtype: torch.dtype = torch.float32
    quantisation: str = "none"
    offload: str = "none"
    vae_tiling: bool = False
    compiled: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    image: str = "none"


BACKENDS: Mapping[str, str] = MappingProxyType({"modular": "models.modular:ModularBackend"})
"""Ours; `backends` adds those of installed packages."""
GROUP = "rollover.backends"
"""The entry points by which packages add backends, as `name = "module:class"`."""

REWARDS: Mapping[str, str] = MappingProxyType(
    {
        "scene_match": "models.rewards.scene_match:SceneMatch",
        "object_count": "models.rewards.object_count:ObjectCount",
        "scene_exact": "models.rewards.scene_exact:SceneExact",
        "compressibility": "models.rewards.compressibility:Compressibility",
        "incompressibility": "models.rewards.incompressibility:Incompressibility",
        "brightness": "models.rewards.brightness:Brightness",
        "colorfulness": "models.rewards.colorfulness:Colorfulness",
        "sharpness": "models.rewards.sharpness:Sharpness",
        "http": "models.rewards.http:Http",
        "clip_score": "models.rewards.clip_score:ClipScore",
        "pickscore": "models.rewards.pickscore:PickScore",
        "hps": "models.rewards.hps:Hps",
        "aesthetic": "models.rewards.aesthetic:Aesthetic",
        "siglip": "models.rewards.siglip:Siglip",
        "vqa_score": "models.rewards.vqa_score:VqaScore",
        "instructblip": "models.rewards.instructblip:InstructBlip",
        "image_reward": "models.rewards.image_reward:ImageReward",
        "grounded_count": "models.rewards.grounded_count:GroundedCount",
    }
)


def load_model(source: ModelSource, device: torch.device | str = "cpu") -> FlowBackend:
    """Load a model onto a device.

    Raises:
        UnknownNameError: no such backend.
        models.backend.ModelLoadError: its files are missing or not what they should be, or the package that
            brings the backend is broken.
    """
    return backend_of(source).load(source.folder, device=device, **options_of(source))


def check_model(source: ModelSource, device: torch.device | str = "cpu") -> None:
    """Refuse what `load_model` would before it reads weights, where the backend knows how.

    Raises:
        UnknownNameError: no such backend.
        models.backend.ModelLoadError: it would be refused.
    """
    backend = backend_of(source)
    if hasattr(backend, "check"):
        backend.check(source.folder, device=device, **options_of(source))


def backend_of(source: ModelSource) -> Any:  # noqa: ANN401 -- a class, perhaps a stranger's
    """The class that drives a model. Raises as `load_model` does."""
    path = lookup("backend", source.backend, backends())
    try:
        return imported(path)
    except Exception as error:  # whatever a stranger's module may raise
        raise ModelLoadError(f"backend '{source.backend}': {unimportable(path, error)}") from error


def options_of(source: ModelSource) -> dict[str, Any]:
    """What a backend is told beside the folder and the device."""
    return {name: value for name, value in vars(source).items() if name not in {"folder", "backend"}}


def backends() -> Mapping[str, str]:
    """Import paths by name: those of installed packages, and ours, whose names no package can give."""
    return {**{entry.name: entry.value for entry in entry_points(group=GROUP)}, **BACKENDS}


def load_reward(
    name: str,
    device: torch.device | str = "cpu",
    *,
    factory: str | None = None,
    **needs: Any,  # noqa: ANN401 each reward's own
) -> Reward:
    """Load a reward onto a device.

    Args:
        name: of the reward.
        device: where it shall run.
        factory: import path of one that an installed package brings; None: it is ours.
        needs: what it needs beside, such as the `folder` of its weights.

    Raises:
        UnknownNameError: no such reward.
        models.rewards.protocol.RewardLoadError: it lacks what it needs, or cannot be loaded from it.
    """
    if factory is None:
        return imported(lookup("reward", name, REWARDS))(device, **needs)
    try:
        return imported(factory)(device, **needs)
    except (RewardLoadError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a stranger's module may raise
        raise RewardLoadError(f"reward '{name}': {unimportable(factory, error)}") from error


def unimportable(path: str, error: Exception) -> str:
    """Say in one line why what a package brings cannot be used."""
    why = " ".join(str(error).split())
    return f"{path} of an installed package cannot be used: {type(error).__name__}: {why}"


def lookup(kind: str, name: str, table: Mapping[str, EntryT]) -> EntryT:
    """The table's entry of that name, or an error that names the nearest ones."""
    if name not in table:
        raise UnknownNameError(f"no {kind} '{name}'; {nearest(name, table)}")
    return table[name]


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known names look like this one, or list them all."""
    known = sorted(known)
    close = get_close_matches(name.lower(), known)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"


def imported(path: str) -> Any:  # noqa: ANN401 a table of import paths has no one type
    """The object that an import path `module:name` stands for."""
    module, name = path.split(":")
    return getattr(import_module(module), name)
