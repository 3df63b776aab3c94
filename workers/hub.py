"""Repositories of the Hugging Face hub: what it says of one, fetching what a model needs, and what is here.

Files lie where `hf download` puts them too. Only `look_up`, `choose` and `fetch` reach the network.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_token,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models.layout import INDEXES, components, pickled, wanted
from models.sizes import readable


class HubError(Exception):
    """A repository cannot be had; the message says why, and what to do."""


@dataclass(frozen=True)
class Offer:
    """What the hub says of a repository.

    Attributes:
        repository: owner and name.
        revision: branch, tag or commit; None: its main branch.
        licence: as its card names it; None: it does not.
        gated: whether its licence must be accepted, under one's own name, before files can be had.
        sizes: of its files by path, in bytes.
    """

    repository: str
    revision: str | None
    licence: str | None
    gated: bool
    sizes: Mapping[str, int]

    @property
    def page(self) -> str:
        """Address of the repository's page."""
        return page(self.repository)


def look_up(repository: str, revision: str | None) -> Offer:
    """Ask the hub about a repository, which it answers for gated ones too.

    Raises:
        HubError: it cannot be asked, or has no such repository or revision.
    """
    with explained(repository, revision):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    licence = info.card_data.get("license") if info.card_data else None
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    return Offer(repository, revision, licence, bool(info.gated), sizes)


def choose(offer: Offer) -> list[str]:
    """The files that a model needs of a repository, by its index, which is fetched.

    Raises:
        HubError: it is no model in diffusers' layout, has weights as pickles only, or is gated.
    """
    index = next((name for name in INDEXES if name in offer.sizes), None)
    if index is None:
        raise HubError(
            f"{offer.repository} is no model in diffusers' layout: it has no {INDEXES[0]}. "
            "Name one that has, such as the one whose name ends in -diffusers or -Diffusers"
        )
    with explained(offer.repository, offer.revision):
        file = hf_hub_download(offer.repository, index, revision=offer.revision)
    parts = components(json.loads(Path(file).read_text(encoding="utf-8")))
    absent = [part for part in parts if not any(name.startswith(f"{part}/") for name in offer.sizes)]
    if absent:
        raise HubError(
            f"{offer.repository} has no {', '.join(absent)}, which its index takes from elsewhere: name a "
            "repository that holds a whole model"
        )
    for part, names in pickled(offer.sizes, parts).items():
        raise HubError(
            f"{offer.repository}: {part} has only pickles ({', '.join(names)}), which can run code and are "
            "never fetched; set `revision` to one with safetensors, or name another repository"
        )
    return wanted(offer.sizes, parts)


def fetch(offer: Offer, names: Sequence[str]) -> Path:
    """Fetch files, showing how far it is, and go on where an earlier try ended; the folder they are in.

    Raises:
        HubError: they cannot be had, or there is no room for them.
    """
    refuse_full_disk(offer, names)
    with explained(offer.repository, offer.revision):
        folder = snapshot_download(
            offer.repository,
            revision=offer.revision,
            allow_patterns=[*names],
        )
    return Path(folder)


def refuse_full_disk(offer: Offer, names: Sequence[str]) -> None:
    """Refuse to begin what the disk cannot hold. Raises HubError."""
    cache = Path(constants.HF_HUB_CACHE)
    found = here(offer.repository, offer.revision)
    need = sum(offer.sizes[name] for name in names if not (found and (found / name).is_file()))
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.exists())).free
    if need > free:
        raise HubError(
            f"{readable(need)} are to be fetched and {cache} has room for {readable(free)}: "
            "make room, or set HF_HOME to a folder on a larger disk, for the workers too"
        )


def here(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository on this machine, whole or in part; None: there is not even its index."""
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=[*INDEXES], local_files_only=True
        )
    except (LocalEntryNotFoundError, OSError):
        return None
    return Path(folder) if any(Path(folder, name).is_file() for name in INDEXES) else None


def lacking(repository: str, revision: str | None, folder: Path) -> list[str]:
    """The files that a model needs and that a fetch which broke off has not brought to `folder`."""
    try:
        listed = get_cached_repo_tree(repository, revision=revision)
    except CachedRepoTreeNotFoundError:
        return []  # put there by other means: what is missing shows when it is loaded
    index = next(folder / name for name in INDEXES if (folder / name).is_file())
    parts = components(json.loads(index.read_text(encoding="utf-8")))
    return [name for name in wanted((file.path for file in listed), parts) if not (folder / name).is_file()]


@contextmanager
def explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into what the user can do."""
    try:
        yield
    except GatedRepoError as error:
        raise HubError(gated(repository)) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{repository} has no revision '{revision}': {page(repository)}/tree/main lists them"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{constants.ENDPOINT} shows no repository {repository}: check `repository` in the catalogue; "
            f"for a private one set HF_TOKEN to a token that may read it{wrong_token()}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubError(
            "HF_HUB_OFFLINE is set: unset it to fetch, or name a `folder` in the catalogue"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError, LocalEntryNotFoundError, OSError) as error:
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        raise HubError(
            f"{repository} could not be fetched from {constants.ENDPOINT}: {reason} What has come is kept, "
            "and the same command goes on; HF_ENDPOINT names a mirror"
        ) from error


def gated(repository: str) -> str:
    """What to do about a gated repository, with a token or without."""
    accept = f"accept its licence at {page(repository)}"
    if get_token() is None:
        return (
            f"{repository} is gated: {accept}, make a token that may read it at "
            f"{constants.ENDPOINT}/settings/tokens and set HF_TOKEN to it"
        )
    return (
        f"{repository} is gated and the token does not open it: {accept} as the token's owner, wait where "
        "the authors must agree, and let a fine-grained token read gated repositories"
    )


def wrong_token() -> str:
    """What else may be wrong where there is a token: with one that is not valid the hub shows nothing."""
    return "" if get_token() is None else "; the token that is set may not be valid"


def page(repository: str) -> str:
    """Address of a repository's page."""
    return f"{constants.ENDPOINT}/{repository}"
