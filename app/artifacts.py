"""Read and remove artifacts; the workers write them."""

import asyncio

from fsspec.core import url_to_fs

from app.problems import ProblemError


class Artifacts:
    """The artifact store: any fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open a store; a local folder need not exist yet."""
        self.filesystem, self.root = url_to_fs(url)

    async def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None where there is no such file."""
        try:
            return await asyncio.to_thread(self.filesystem.cat_file, f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProblemError("storage_unavailable", "The artifact store cannot be read.") from error

    async def copy(self, source: str, target: str) -> bool:
        """Copy a file; return whether there was one."""
        try:
            await asyncio.to_thread(self._copy, f"{self.root}/{source}", f"{self.root}/{target}")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ProblemError("storage_unavailable", "The artifact store cannot be changed.") from error
        return True

    def _copy(self, source: str, target: str) -> None:
        self.filesystem.info(source)
        self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.filesystem.cp_file(source, target)

    async def remove(self, folder: str) -> None:
        """Remove everything under a folder."""
        try:
            await asyncio.to_thread(self.filesystem.rm, f"{self.root}/{folder}", recursive=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ProblemError("storage_unavailable", "The artifact store cannot be changed.") from error
