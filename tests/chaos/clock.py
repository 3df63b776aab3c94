"""The wall clock of the service's processes, set at will: needs a C compiler and no root."""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
POSSIBLE = shutil.which("cc") is not None
"""Whether clocks can be set here; without a C compiler they are left alone."""


@dataclass(frozen=True)
class Clock:
    """One clock for all processes that are started in its environment.

    Args:
        folder: for the library and the file that has the offset.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process take this clock; builds it."""
        library = self.folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)  # noqa: S607
        self.set(0)
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self.folder / "offset")}

    def set(self, seconds: int) -> None:
        """Set it so many seconds ahead, or back where negative."""
        with (self.folder / "offset").open("r+b" if (self.folder / "offset").exists() else "wb") as file:
            file.write(struct.pack("l", seconds))
