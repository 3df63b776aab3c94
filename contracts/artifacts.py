"""How both sides open the artifact store, and write where it is a folder."""

import errno
import os
import uuid
from itertools import takewhile
from pathlib import Path
from typing import Any

S3_SCHEMES = ("s3://", "s3a://")
S3_CLIENT = {"connect_timeout": 3, "read_timeout": 5, "retries": {"mode": "standard", "max_attempts": 2}}
"""Of botocore. Whoever asks the store tries again by itself, and should soon hear that it must."""


def options(url: str) -> dict[str, Any]:
    """Return the options with which fsspec opens the store at a URL.

    Listings are never kept: another process writes what this one lists.
    """
    client = {"config_kwargs": S3_CLIENT} if url.startswith(S3_SCHEMES) else {}
    return {"use_listings_cache": False, **client}


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, so that it is on the disk, under its name, and no reader ever sees a part of it."""
    made = list(takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    for entry in (path, *made):
        sync_folder(entry.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that and nobody has removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what those answer that sync no folders
            raise
    finally:
        os.close(descriptor)
