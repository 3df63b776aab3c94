"""The artifact store: a folder, or whatever else an fsspec URL names."""

import errno
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from contracts.artifacts import options, replace_file
from workers.failures import StorageFailedError

PAUSES = (0.2, 1.0, 3.0, 10.0, 20.0, 30.0)
"""Seconds between attempts to write what must be; a store that refuses after the last fails the job."""
REST = 5.0
"""Seconds for which a store that has just refused is not asked for what can be done without."""
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass
class ArtifactStore:
    """Files below one URL."""

    filesystem: Any
    root: str
    _resting_until: float = 0.0

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at an fsspec URL, such as a folder, `s3://bucket/prefix` or `gs://bucket/prefix`.

        Not before a fork: fsspec speaks to object stores from a thread of its own.
        """
        filesystem, root = url_to_fs(url, **options(url))
        return cls(filesystem, root.rstrip("/"))

    def put(self, path: str, content: bytes, tick: Callable[[], None] = lambda: None) -> None:
        """Write a file that must be there, or replace it, whole or not at all.

        Args:
            path: below the root.
            content: its bytes.
            tick: called before each further attempt.

        Raises:
            StorageFailedError: the store refused for about a minute.
        """
        self._patiently(path, lambda: self._write(path, content), tick)

    def need(self, path: str, tick: Callable[[], None] = lambda: None) -> bytes | None:
        """The bytes of a file without which a job cannot go on; None: it is not there.

        Args:
            path: below the root.
            tick: called before each further attempt.

        Raises:
            StorageFailedError: the store refused for about a minute.
        """

        def ask() -> bytes | None:
            try:
                return self.get(path)
            except FileNotFoundError:
                return None

        return self._patiently(path, ask, tick)

    def _patiently(self, path: str, ask: Callable[[], T], tick: Callable[[], None]) -> T:
        for pause in PAUSES:
            try:
                return ask()
            except OSError as error:
                log.warning("the artifact store refused %s, trying again: %s", path, error)
                time.sleep(pause)
                tick()
        try:
            return ask()
        except OSError as error:
            raise StorageFailedError(path) from error

    def offer(self, path: str, content: bytes) -> bool:
        """Write a file that the search can do without, as `put` does but once. Whether it is there."""
        if time.monotonic() < self._resting_until:
            return False
        try:
            self._write(path, content)
        except OSError as error:
            log.warning("the artifact store refused %s, going on without it: %s", path, error)
            self._resting_until = time.monotonic() + REST
            return False
        return True

    def get(self, path: str) -> bytes:
        """A file's bytes. Raises `OSError`."""
        with as_os_errors():
            return self.filesystem.cat_file(f"{self.root}/{path}")

    def remove(self, path: str) -> None:
        """Remove a file; one that cannot be removed is logged and left."""
        try:
            with as_os_errors():
                self.filesystem.rm_file(f"{self.root}/{path}")
        except OSError as error:
            log.warning("%s is left: %s", path, error)

    def sweep(self, folder: str, keep: Iterable[str] = ()) -> None:
        """Remove the files of a folder but some; what cannot be removed is logged and left."""
        kept = {f"{self.root}/{path}" for path in keep}
        try:
            with as_os_errors():
                for path in self.filesystem.find(f"{self.root}/{folder}"):
                    if path not in kept:
                        self.filesystem.rm_file(path)
        except OSError as error:
            log.warning("files are left in %s: %s", folder, error)

    def _write(self, path: str, content: bytes) -> None:
        full = f"{self.root}/{path}"
        with as_os_errors():
            if isinstance(self.filesystem, LocalFileSystem):
                replace_file(Path(full), content)
            else:
                # An object store shows an object once it is complete, and knows no folders to be made.
                self.filesystem.pipe_file(full, content)


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raise `OSError` for whatever a store's own library raises, which is no OSError while it is away."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"the artifact store failed ({type(error).__name__})") from error
