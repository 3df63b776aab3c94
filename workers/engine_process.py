"""The engine's process: a warm model that runs the jobs its supervisor names, one after the other."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from queue import Queue

from contracts import tracing
from contracts.logs import configure
from models.backend import ModelLoadError
from models.registry import UnknownNameError
from workers.counts import Counts
from workers.engine import Engine
from workers.execution import Runner
from workers.headroom import taken
from workers.hold import connect
from workers.messages import Asking, Heed, Loaded, Order, Ready, Refused, Run, Spec, Tick
from workers.needs import reward_needs
from workers.provenance import HASHES
from workers.store import ArtifactStore

PR_SET_PDEATHSIG = 1


class Line:
    """The engine's end of the pipe. A thread reads it, so that orders arrive while a step is computed."""

    def __init__(self, pipe: "Connection[object, object]") -> None:
        self.orders: set[tuple[str, Order]] = set()
        self._pipe = pipe
        self._jobs: Queue[Run] = Queue()
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def send(self, message: object) -> None:
        """Tell the supervisor."""
        self._pipe.send(message)

    def jobs(self) -> Iterator[Run]:
        """The jobs to run, without end."""
        while True:
            run = self._jobs.get()
            self.orders.clear()
            yield run

    def _listen(self) -> None:
        try:
            while True:
                message = self._pipe.recv()
                if isinstance(message, Run):
                    self._jobs.put(message)
                elif isinstance(message, Heed):
                    self.orders.add((message.job_id, message.order))
        except (EOFError, OSError):
            os._exit(0)  # the supervisor is gone: whoever takes the job over must have the device


def main(pipe: "Connection[object, object]", spec: Spec) -> None:
    """Load the model, warm it up, and run jobs until the supervisor ends. A fault of the device ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    configure(worker=spec.worker, engine=os.getpid())
    tracing.configure("rollover-engine")
    HASHES.update(spec.hashes)
    line = Line(pipe)
    try:
        engine = Engine.load(
            spec.model, spec.worker_settings, reward_needs(spec.settings), spec.settings.entries
        )
        line.send(Loaded())
        engine.asking = lambda name: line.send(Asking(name))
        engine.warm_up()
    except (ModelLoadError, UnknownNameError) as error:
        line.send(Refused(str(error)))
        return
    store = ArtifactStore.open(spec.settings.artifacts)
    with connect(spec.redis_url) as connection:
        counts = Counts(connection, spec.model)
        engine.halved = lambda: counts.add("halvings")
        tick = engine.stepped = lambda: line.send(Tick())
        runner = Runner(connection, engine, store, spec.worker, spec.settings, line.orders, tick, line.send)
        line.send(Ready(str(engine.device), taken(engine.device), HASHES))
        for run in line.jobs():
            line.send(runner.run(run.job_id, run.traceparent, run.lost))


def die_with_parent() -> None:
    """Have Linux end this process with the server it was forked from, which ends with the supervisor.

    A step that hangs and holds the interpreter would keep `Line` from noticing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
