"""With this folder in PYTHONPATH a process that comes to import HELD_MODULE waits for a file `go`, and dies.

It makes a file `reached` there. Both are in HELD_FOLDER. So a test knows how far the process is.
"""

import os
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

FOLDER = Path(os.environ["HELD_FOLDER"])


class Holding(MetaPathFinder):
    """Finds nothing."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == os.environ["HELD_MODULE"]:
            (FOLDER / "reached").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.01)
            os._exit(3)


sys.meta_path.insert(0, Holding())
