"""A model of the catalogue, made ready to be loaded on this machine."""

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from contracts.models import Entry
from models.backend import ModelLoadError
from models.registry import ModelSource


def source_of(entry: Entry, folder: Path | None = None) -> ModelSource:
    """Where a model is and how it is loaded; `folder` in place of the entry's own.

    Raises:
        ModelLoadError: its repository is not on this machine.
    """
    return ModelSource(
        folder=folder or entry.folder or fetched(str(entry.repository), entry.revision),
        backend=entry.backend,
        dtype=getattr(torch, entry.dtype),
        quantisation=entry.quantisation,
        offload=entry.offload,
        vae_tiling=entry.vae_tiling,
        inputs=entry.inputs,
    )


def fetched(repository: str, revision: str | None) -> Path:
    """The folder where `hf download` has put a repository. Nothing is downloaded by a worker."""
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        command = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        raise ModelLoadError(
            f"the repository {repository} is not on this machine: fetch it with `{command}`"
        ) from error
