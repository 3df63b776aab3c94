"""A model of the catalogue, made ready to be loaded on this machine."""

from pathlib import Path

import torch

from contracts.models import Entry
from models.backend import ModelLoadError
from models.registry import ModelSource
from models.room import Model, Room
from models.weights import BrokenFileError, parameters_of
from workers import hub
from workers.host import host_memory


def source_of(model: str, entry: Entry, folder: Path | None = None) -> ModelSource:
    """Where a model is and how it is loaded.

    Args:
        model: its id.
        entry: of the catalogue.
        folder: in place of the entry's own.

    Raises:
        ModelLoadError: its repository is not on this machine, or in part only.
    """
    return ModelSource(
        folder=folder or entry.folder or fetched(model, str(entry.repository), entry.revision),
        backend=entry.backend,
        dtype=getattr(torch, entry.dtype),
        quantisation=entry.quantisation,
        offload=entry.offload,
        vae_tiling=entry.vae_tiling,
        compiled=entry.compile,
        inputs=entry.inputs,
        image=entry.image,
    )


def fetched(model: str, repository: str, revision: str | None) -> Path:
    """The folder where a repository was fetched to. Nothing is downloaded by a worker."""
    folder = hub.here(repository, revision)
    if folder is None:
        raise ModelLoadError(
            f"the repository {repository} is not on this machine: "
            f"fetch it with `rollover models pull {model}`"
        )
    lacking = hub.lacking(repository, revision, folder)
    if lacking:
        raise ModelLoadError(
            f"the repository {repository} is on this machine without {len(lacking)} of its files, such as "
            f"{lacking[0]}: fetch the rest with `rollover models pull {model}`"
        )
    return folder


def refuse_too_large(source: ModelSource, device: torch.device) -> None:
    """Refuse, before anything is read, a model whose weights the device has no room for.

    Raises:
        ModelLoadError: with what makes it fit.
    """
    if source.backend != "modular":
        return
    try:
        parameters = parameters_of(source.folder)
    except (BrokenFileError, OSError):
        return  # what is wrong with the folder is said where it is loaded
    room = Room(*free_memory(device))
    dtype = str(source.dtype).removeprefix("torch.")
    lacks = room.lacks(Model(parameters), dtype, source.quantisation, source.offload)
    if lacks:
        raise ModelLoadError(f"not enough memory on {device}: {lacks}; {room.advice(Model(parameters))}")


def free_memory(device: torch.device) -> tuple[int, int | None]:
    """Bytes of a device that could be had now, and of the CPU's memory where that is another."""
    host, _ = host_memory()
    return (torch.cuda.mem_get_info(device)[0], host) if device.type == "cuda" else (host, None)
