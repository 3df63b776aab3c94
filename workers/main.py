"""Put a worker together and run it until it is told to stop."""

import argparse
import logging
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Sequence

import redis
from pydantic import ValidationError

from contracts import tracing
from contracts.beats import WorkerState
from contracts.logs import configure
from contracts.rewards import tell_of_broken
from contracts.settings import Settings, in_words
from workers.beat import Beat
from workers.berths import Berths
from workers.hold import away, connect
from workers.messages import Spec
from workers.resident import EngineStartError, Resident, ToldToStopError
from workers.settings import WorkerSettings
from workers.store import ArtifactStore
from workers.supervisor import Supervisor
from workers.trouble import tell
from workers.worker import GenerationWorker

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker. Returns the exit code: 0 after SIGTERM, 1 after a failure, 2 for wrong settings."""
    options = _options(arguments)
    try:
        settings, worker_settings = Settings(), WorkerSettings()
    except ValidationError as error:
        return _refuse(in_words(error), 2)
    if settings.reward_url and settings.reward_timeout_seconds >= worker_settings.hang_seconds:
        # The engine would be taken for hung before it could say that the service is.
        return _refuse("ROLLOVER_REWARD_TIMEOUT_SECONDS must be less than ROLLOVER_HANG_SECONDS", 2)
    if settings.redis_url is None:
        return _refuse(
            "ROLLOVER_REDIS_URL is not set (`rollover serve` sets it for the workers it starts)", 2
        )
    try:
        return work(options.model or settings.models[0], settings.redis_url, settings, worker_settings)
    except redis.RedisError as error:
        if not away(error):
            raise
        return _refuse(f"no Redis at {settings.redis_url.partition('?')[0].rpartition('@')[2]}: {error}", 1)
    except EngineStartError as error:
        return _refuse(f"the model cannot be loaded: {error}", 1)


def work(model: str, redis_url: str, settings: Settings, worker_settings: WorkerSettings) -> int:
    """Start the engine, then run jobs until told to stop."""
    name = f"{model}-{uuid.uuid4().hex[:12]}"
    configure(worker=name)
    tracing.configure("rollover-worker")
    tell_of_broken()
    with (
        connect(redis_url) as connection,
        redis.Redis.from_url(redis_url) as rq_connection,
        Beat(connection, name, model) as beat,
    ):
        device = settings.entries[model].device if model in settings.entries else None
        berths = Berths.of(device or worker_settings.device, name, settings, worker_settings)
        spec = Spec(model, name, redis_url, settings, worker_settings)
        engine = Resident(spec, threading.Event(), berths=berths)
        store = ArtifactStore.open(settings.artifacts)
        supervisor = Supervisor(connection, engine, store, settings.max_attempts, beat.show)
        worker = GenerationWorker(rq_connection, supervisor, beat)
        # Before the model is loaded: a container's first process ignores what it has no handler for.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, worker.request_stop)
        try:
            found = started(engine, connection, lambda: beat.show(WorkerState.WARMING))
            beat.show(WorkerState.READY)
            log.info("serves %s on %s", model, found)
            worker.work_on()
        except ToldToStopError:
            log.info("stopped before it served")
        finally:
            engine.kill()
    return 1 if supervisor.broken else 0


def started(engine: Resident, connection: redis.Redis, loaded: Callable[[], None]) -> str:
    """Start the first engine, and have `readyz` say why where that fails; the name of its device."""
    try:
        device = engine.start(loaded)
    except EngineStartError as error:
        tell(connection, engine.spec.model, error)
        raise
    tell(connection, engine.spec.model, None)
    return device


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers", description="Run the searches of one model.")
    parser.add_argument("--model", help="id in the catalogue; default: the first of ROLLOVER_MODELS")
    return parser.parse_args(arguments)


def _refuse(reason: str, code: int) -> int:
    sys.stderr.write(f"worker: {reason}\n")
    return code
