"""`python -m workers.pull MODEL`: fetch a model of the catalogue, saying licence and gating first."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants

from contracts.models import Entry
from contracts.names import did_you_mean
from contracts.settings import Settings, in_words
from models.sizes import readable
from models.weights import BrokenFileError, header
from workers import hub
from workers.hub import HubError, Offer


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, or say why not. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.pull", description=__doc__)
    parser.add_argument("model", help="id in the catalogue")
    model: str = parser.parse_args(arguments).model
    try:
        pull(model, entry_of(model))
    except (HubError, BrokenFileError, ValueError) as error:
        sys.stderr.write(f"pull: {in_words(error)}\n")
        return 1
    return 0


def entry_of(model: str) -> Entry:
    """The catalogue's entry. Raises ValueError where there is none, or the catalogue is wrong."""
    entries = Settings().entries
    if model not in entries:
        hint = did_you_mean(model, entries) or f" There are {', '.join(sorted(entries))}."
        raise ValueError(f"no model '{model}' in the catalogue.{hint}")
    return entries[model]


def pull(model: str, entry: Entry) -> None:
    """Fetch what a model needs.

    Raises:
        HubError: it cannot be had.
        BrokenFileError: what was fetched is no safetensors file.
    """
    if entry.repository is None:
        raise HubError(f"{model} is the folder {entry.folder}: there is nothing to fetch")
    offer = hub.look_up(entry.repository, entry.revision)
    say(model, offer)
    names = hub.choose(offer)
    sys.stdout.write(
        f"  files    {len(names)}, {readable(sum(offer.sizes[name] for name in names))}, "
        f"to {constants.HF_HUB_CACHE}\n"
    )
    sys.stdout.flush()
    folder = hub.fetch(offer, names)
    refuse_broken(folder, names)
    sys.stdout.write(f"{model} is ready in {folder}\n")


def say(model: str, offer: Offer) -> None:
    """What should be known before anything is fetched."""
    gated = f"yes: its licence must be accepted at {offer.page}" if offer.gated else "no"
    sys.stdout.write(
        f"{model}: {offer.repository}, revision {offer.revision or constants.DEFAULT_REVISION}\n"
        f"  licence  {offer.licence or 'not stated; see ' + offer.page}\n"
        f"  gated    {gated}\n"
    )
    sys.stdout.flush()


def refuse_broken(folder: Path, names: Sequence[str]) -> None:
    """Read the header of every file of weights. Raises BrokenFileError."""
    for name in names:
        if name.endswith(".safetensors"):
            header(folder / name)


if __name__ == "__main__":
    sys.exit(main())
