"""What the server that engines are forked from imports, once for all of them; see `workers.resident`.

Importing this has effects and is meant to: it is the program of that process.
"""

import contextlib
import signal

from contracts.models import ENTRIES
from models.backend import ModelLoadError
from models.modular import open_pipeline
from workers import engine_process

# A service manager may signal all processes of a worker at once: its supervisor alone decides who ends when.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)

# diffusers imports its families when a repository is first opened, which takes most of the time.
# No weights are read and no device is touched.
with contextlib.suppress(ModelLoadError):
    open_pipeline(str(ENTRIES["shapes"].folder))

__all__ = ["engine_process"]
