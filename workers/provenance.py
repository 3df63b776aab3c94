"""What a result says of where it came from."""

import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch

from models.rewards.protocol import Facts, Reward
from workers.messages import Hashes

LIBRARIES = ("rollover", "torch", "diffusers", "transformers", "numpy", "scipy", "pillow")
CHUNK = 1 << 20
HASHES = Hashes()
"""What this process or an engine before it has read: to read 24 GB again takes most of a minute."""


@cache
def weights_sha256(folder: Path) -> str:
    """One hash over every weight file in a folder: its path below it and its bytes.

    Computed once: what a process has loaded stays what it was.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(file_sha256(path).encode())
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of one file, read in pieces: weights are larger than memory should have to hold."""
    stat = path.stat()
    key = str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in HASHES:
        HASHES[key] = _read_sha256(path)
    return HASHES[key]


def _read_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions by name; one that runs from a checkout and is not installed is left out."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def reward_versions(rewards: Mapping[str, Reward]) -> dict[str, str]:
    """For each reward the first 12 digits of one hash over our code that it runs and its weights."""
    return {name: _version(reward) for name, reward in rewards.items()}


def _version(reward: Reward) -> str:
    files = code_of(type(reward).__module__)
    facts: Facts | None = getattr(reward, "facts", None)  # a package tells them elsewhere
    if facts and facts.weights is not None:
        files.append(facts.weights)
    total = hashlib.sha256()
    for path in files:
        total.update(file_sha256(path).encode())
    folder: Path | None = getattr(reward, "folder", None)
    if folder is not None:
        total.update(weights_sha256(folder).encode())
    return total.hexdigest()[:12]


def code_of(module: str) -> list[Path]:
    """The source of a module and of those of the same package that it takes names from, and they in turn."""
    package, found, open_ends = module.partition(".")[0], set[str](), [module]
    while open_ends:
        name = open_ends.pop()
        found.add(name)
        values = vars(sys.modules[name]).values()
        origins = {str(getattr(value, "__module__", None)) for value in values}
        open_ends += [origin for origin in origins - found if origin.partition(".")[0] == package]
    return [Path(str(sys.modules[name].__file__)) for name in sorted(found)]


def device_name(device: torch.device) -> str:
    """The device, and which or how much of it: only on the same kind are pictures the same to the byte."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
