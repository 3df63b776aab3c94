"""What readyz says while engines die, are replaced and cannot be: a real worker, a real server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from contracts.keys import totals_key
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.chaos.processes import engine_of
from tests.workers.conftest import Start, wait_for


@pytest.fixture
def door(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def ready(door: httpx.Client) -> bool:
    return door.get("/readyz").status_code == 200


def reasons(door: httpx.Client) -> str:
    answer = door.get("/readyz")
    return "" if answer.status_code == 200 else " ".join(answer.json()["reasons"])


def kill_engine(worker: int) -> int:
    engine = engine_of(worker)
    assert engine
    os.kill(engine, signal.SIGKILL)
    return engine


def test_a_worker_whose_engine_cannot_be_started_again_is_not_ready_and_says_why(
    door: httpx.Client, redis: Redis, start: Start, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.symlink_to(tiny_model)
    settings = {"ROLLOVER_MODEL_PATHS": f"shapes={model}"}
    assert reasons(door) == "No live worker for model 'shapes'."
    worker = start(**settings)
    wait_for(lambda: ready(door))
    first = kill_engine(worker.pid)
    wait_for(lambda: engine_of(worker.pid) not in (None, first))
    # Ready it is shown to be until it has said otherwise; this is counted once the new engine is.
    wait_for(lambda: redis.hget(totals_key("shapes"), "engine_restarts") == "1")
    wait_for(lambda: ready(door))
    model.unlink()
    kill_engine(worker.pid)
    assert wait_for(lambda: not ready(door)) < 30
    assert worker.wait(timeout=60) == 1
    assert f"Its last engine could not be started: no model at {model}" in reasons(door)
    again = start(**settings)
    assert again.wait(timeout=100) == 1
    assert "could not be started" in reasons(door)
    model.symlink_to(tiny_model)
    start(**settings)
    wait_for(lambda: ready(door))
