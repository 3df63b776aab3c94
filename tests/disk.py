"""What a power cut would leave of files written meanwhile: those that were synced, and by what names."""

import os
import stat
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

fsync = os.fsync


@dataclass
class Disk:
    """Watches what this process syncs.

    Attributes:
        files: inodes of files.
        names: of each folder, by inode, as they were when it was synced last.
    """

    files: set[int] = field(default_factory=set[int])
    names: dict[int, set[str]] = field(default_factory=dict[int, set[str]])

    @classmethod
    def watched(cls, monkeypatch: pytest.MonkeyPatch) -> "Disk":
        """The disk from now on, with nothing in it."""
        disk = cls()
        monkeypatch.setattr(os, "fsync", disk.fsync)
        return disk

    def fsync(self, descriptor: int) -> None:
        """Sync, and note it."""
        fsync(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self.names[found.st_ino] = set(os.listdir(descriptor))
        else:
            self.files.add(found.st_ino)

    def has(self, root: Path, path: str) -> bool:
        """Whether a file below a folder that was there before would still be, and so whatever leads to it."""
        steps = [root, *(root / above for above in reversed(Path(path).parents[:-1])), root / path]
        led = all(below.name in self.names.get(above.stat().st_ino, ()) for above, below in pairwise(steps))
        return led and (root / path).stat().st_ino in self.files
