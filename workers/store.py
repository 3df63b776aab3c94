"""The artifact store: a folder, or whatever else an fsspec URL names."""

from dataclasses import dataclass
from typing import Any, Self

from fsspec.core import url_to_fs

from workers.failures import StorageFailedError


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
        """Write a file, or replace it. Raises `StorageFailedError`."""
        full = f"{self.root}/{path}"
        try:
            self.filesystem.makedirs(full.rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(full, content)
        except OSError as error:
            raise StorageFailedError(path) from error
