"""A model of the catalogue, made ready to be loaded on this machine."""

from pathlib import Path

import torch

from contracts.models import Entry
from models.backend import ModelLoadError
from models.registry import ModelSource
from workers import hub


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
        inputs=entry.inputs,
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
