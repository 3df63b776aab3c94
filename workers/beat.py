"""The thread by which a worker shows that it lives, whatever its main thread is doing."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Self, cast

import redis

from contracts.beats import WorkerBeat, WorkerState
from contracts.keys import WORKER_TTL_SECONDS, WORKERS_KEY, worker_key

INTERVAL = 1.0
log = logging.getLogger(__name__)


class Beat:
    """Beats every `INTERVAL` seconds and at every change of state; a context manager.

    Attributes:
        also: called with every beat: for other signs of life, and to look after those of others.
    """

    def __init__(self, connection: redis.Redis, name: str, model: str) -> None:
        self.also: Callable[[], None] | None = None
        self._connection = connection
        self._facts = {"name": name, "model": model, "pid": os.getpid(), "host": socket.gethostname()}
        self._key = worker_key(name)
        self._state = WorkerState.LOADING
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> Self:
        self._forget_the_vanished()
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        self._thread.join()
        try:
            self._transaction(("SREM", WORKERS_KEY, self._facts["name"]), ("DEL", self._key))
        except redis.RedisError as error:
            log.warning("Redis is away; this worker's last sign of life ends by itself: %s", error)

    def _forget_the_vanished(self) -> None:
        """Remove the names of workers that were killed; one that lives names itself again."""
        for name in cast("set[str]", self._connection.smembers(WORKERS_KEY)):
            if not self._connection.exists(worker_key(name)):
                self._connection.srem(WORKERS_KEY, name)

    def show(self, state: WorkerState) -> None:
        """Change the state, visible to others at once."""
        self._state = state
        self._changed.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._changed.wait(INTERVAL)
            self._changed.clear()
            try:
                self._beat()
            except redis.RedisError as error:
                log.warning("no heartbeat, Redis is away: %s", error)
            except Exception:  # a worker that lives must not fall silent, whatever it found of others
                log.exception("a heartbeat failed")

    def _beat(self) -> None:
        text = WorkerBeat.model_validate({**self._facts, "state": self._state}).model_dump_json()
        self._transaction(
            ("SADD", WORKERS_KEY, self._facts["name"]),
            ("SET", self._key, text, "EX", WORKER_TTL_SECONDS),
        )
        if self.also:
            self.also()

    def _transaction(self, *commands: tuple[str | int, ...]) -> None:
        with self._connection.pipeline(transaction=True) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()
