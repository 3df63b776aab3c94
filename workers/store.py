"""The artifact store: a folder, or whatever else an fsspec URL names."""

import logging
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from workers.failures import StorageFailedError

PAUSES = (0.2, 1.0, 3.0)
"""Seconds between attempts to write a file; a store that refuses after the last one fails the job."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArtifactStore:
    """Files below one URL."""

    filesystem: Any
    root: str

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at an fsspec URL, such as a folder, `s3://bucket/prefix` or `gs://bucket/prefix`."""
        filesystem, root = url_to_fs(url)
        return cls(filesystem, root.rstrip("/"))

    def put(self, path: str, content: bytes) -> None:
        """Write a file, or replace it, whole or not at all. Raises `StorageFailedError`."""
        for pause in PAUSES:
            try:
                return self._write(path, content)
            except OSError as error:
                log.warning("the artifact store refused %s, trying again: %s", path, error)
                time.sleep(pause)
        try:
            return self._write(path, content)
        except OSError as error:
            raise StorageFailedError(path) from error

    def get(self, path: str) -> bytes:
        """A file's bytes. Raises `OSError`."""
        return self.filesystem.cat_file(f"{self.root}/{path}")

    def remove(self, path: str) -> None:
        """Remove a file; one that cannot be removed is logged and left."""
        try:
            self.filesystem.rm_file(f"{self.root}/{path}")
        except OSError as error:
            log.warning("%s is left: %s", path, error)

    def sweep(self, folder: str, keep: Iterable[str] = ()) -> None:
        """Remove the files of a folder but some; what cannot be removed is logged and left."""
        kept = {f"{self.root}/{path}" for path in keep}
        try:
            for path in self.filesystem.find(f"{self.root}/{folder}"):
                if path not in kept:
                    self.filesystem.rm_file(path)
        except OSError as error:
            log.warning("files are left in %s: %s", folder, error)

    def _write(self, path: str, content: bytes) -> None:
        full = f"{self.root}/{path}"
        self.filesystem.makedirs(full.rpartition("/")[0], exist_ok=True)
        if not isinstance(self.filesystem, LocalFileSystem):
            # An object store shows an object once it is complete.
            self.filesystem.pipe_file(full, content)
            return
        part = f"{full}.{uuid.uuid4().hex}.part"
        try:
            self.filesystem.pipe_file(part, content)
            os.replace(part, full)  # noqa: PTH105 -- fsspec speaks of paths as text
        except OSError:
            if self.filesystem.exists(part):
                self.filesystem.rm_file(part)
            raise
