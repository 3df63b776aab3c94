"""What the server that engines are forked from imports, once for all of them; see `workers.resident`.

Importing this has effects and is meant to: it is the program of that process.
"""

import contextlib
import os
import signal

# A service manager may signal all processes of a worker at once: its supervisor alone decides who ends when.
# Before what takes long to import, or the signal would end this process meanwhile.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
# diffusers asks for a GPU as it is imported. Asked of CUDA itself, no process forked from here could use one:
# it is asked of the driver's library NVML.
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
asked_so = os.environ.get(NVML)
os.environ[NVML] = "1"

from contracts.models import ENTRIES  # noqa: E402
from models.backend import ModelLoadError  # noqa: E402
from models.modular import open_pipeline  # noqa: E402
from workers import engine_process  # noqa: E402

# diffusers imports its families when a repository is first opened, which takes most of the time.
# No weights are read and no device is touched.
with contextlib.suppress(ModelLoadError):
    open_pipeline(str(ENTRIES["shapes"].folder))

del os.environ[NVML]  # an engine asks CUDA, which knows whether a GPU works
if asked_so is not None:
    os.environ[NVML] = asked_so

__all__ = ["engine_process"]
