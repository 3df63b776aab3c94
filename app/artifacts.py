"""Read and remove artifacts, which the workers write, and write the images that submissions come with."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from app.problems import ProblemError
from contracts.artifacts import options, replace_file

THREADS = 16
PATIENCE = 15.0
"""Seconds after which a store that does not answer counts as away."""
TRIES = 10
"""At removing a folder that another removes files of."""
T = TypeVar("T")


class Artifacts:
    """The artifact store: any fsspec URL.

    It has threads of its own: a store that hangs must not hold up what else the server does in threads.
    """

    def __init__(self, url: str) -> None:
        """Open a store; a local folder need not exist yet."""
        self.filesystem, self.root = url_to_fs(url, **options(url))
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")

    def close(self) -> None:
        """Wait for nothing that is under way."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None where there is no such file."""
        full = f"{self.root}/{path}"
        return await self.ask(lambda: self.filesystem.cat_file(full))

    async def write(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        full = f"{self.root}/{path}"
        if not await self.ask(lambda: self.written(full, content)):
            raise away()

    def written(self, path: str, content: bytes) -> bool:
        """Write a file so that a crash does not lose it: an object store shows it once it is complete."""
        if isinstance(self.filesystem, LocalFileSystem):
            replace_file(Path(path), content)
        else:
            self.filesystem.pipe_file(path, content)
        return True

    async def copy(self, source: str, target: str) -> bool:
        """Copy a file; return whether there was one."""
        return bool(await self.ask(lambda: self.copied(f"{self.root}/{source}", f"{self.root}/{target}")))

    def copied(self, source: str, target: str) -> bool:
        """Copy a file that is there, as `written` does. Raises FileNotFoundError where it is not."""
        if isinstance(self.filesystem, LocalFileSystem):
            return self.written(target, Path(source).read_bytes())
        self.filesystem.info(source)
        self.filesystem.cp_file(source, target)
        return True

    async def remove(self, folder: str) -> None:
        """Remove everything under a folder."""
        full = f"{self.root}/{folder}"
        await self.ask(lambda: self.emptied(full))

    def emptied(self, path: str) -> None:
        """Remove a folder and see that it is gone: s3fs is silent about objects that S3 does not let go."""
        for _ in range(TRIES):
            try:
                self.filesystem.rm(path, recursive=True)
                break
            except FileNotFoundError:  # the folder, or a file in it that an engine swept meanwhile
                if not self.filesystem.exists(path):
                    return
        if left := self.filesystem.find(path):
            raise OSError(f"{len(left)} files cannot be removed")

    async def names(self) -> list[str]:
        """Return the names of whatever lies in the store, folders of generations among it."""
        found = await self.ask(lambda: self.filesystem.ls(self.root, detail=False))
        return [path.rstrip("/").rpartition("/")[2] for path in found or ()]

    async def ask(self, what: Callable[[], T]) -> T | None:
        """Do something with the store; None where what it names is not there.

        Raises:
            ProblemError: the store is away, whichever of its library's errors says so.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE):
                return await loop.run_in_executor(self.threads, what)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise away() from error


def away() -> ProblemError:
    """Build the error for a store that is away."""
    return ProblemError("storage_unavailable", "The artifact store cannot be reached, or refuses.")
