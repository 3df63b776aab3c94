"""Real worker processes: one killed, one told to stop, one that cannot start."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from contracts.events import CandidateEvent, Resumed, Started
from contracts.jobs import Status
from contracts.keys import WORKERS_KEY, trouble_key, worker_key
from contracts.settings import Settings
from tests.chaos.processes import children, command_of, engine_of
from tests.chaos.valkey import Valkey
from tests.conftest import ENDLESS
from tests.workers.conftest import Desk, Start, cancel, wait_for
from workers import hold
from workers.execution import Runner
from workers.worker import JOB_TTL


def pid_of(desk: Desk, job: str) -> int:
    """The process that runs a job."""
    started = [event for event in desk.events(job) if isinstance(event, Started)]
    text: Any = desk.redis.get(worker_key(started[-1].worker))
    assert text
    return int(text.split('"pid":')[1].split(",")[0])


def test_a_killed_workers_job_is_taken_over_and_ends_well(desk: Desk, start: Start) -> None:
    workers = {process.pid: process for process in (start(), start())}
    # Both, or the time that one takes to load its model would count as the time to take over.
    wait_for(lambda: are_ready(desk.redis) == [True, True])
    job = desk.submit(budget={"nfe": ENDLESS})
    wait_for(lambda: desk.record(job).progress.nfe_spent > 25)
    engine = engine_of(pid_of(desk, job))
    workers.pop(pid_of(desk, job)).kill()
    others = [desk.submit(seed=seed) for seed in range(3)]
    assert wait_for(lambda: desk.record(job).attempts == 2) < 30
    wait_for(lambda: not Path(f"/proc/{engine}").exists())
    spent = desk.record(job).progress.nfe_spent
    wait_for(lambda: desk.record(job).progress.nfe_spent > spent)
    cancel(desk, job)
    for each in (job, *others):
        wait_for(lambda each=each: desk.record(each).status.final)
        assert desk.record(each).status is (Status.CANCELED if each == job else Status.SUCCEEDED)
        seqs = [event.seq for event in desk.events(each)]
        assert seqs == list(range(1, len(seqs) + 1))
    usage = desk.record(job).usage
    assert usage
    told = [event.nfe for event in desk.events(job) if isinstance(event, CandidateEvent)]
    assert told == list(range(1, usage.nfe_spent + 1))
    assert usage.nfe_redone < 60
    [survivor] = workers.values()
    survivor.send_signal(signal.SIGTERM)
    assert survivor.wait(timeout=60) == 0


def test_a_worker_told_to_stop_gives_its_job_back_with_its_state(desk: Desk, start: Start) -> None:
    worker = start()
    job = desk.submit(budget={"nfe": ENDLESS})
    wait_for(lambda: desk.record(job).progress.nfe_spent > 25)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    record = desk.record(job)
    assert record.status is Status.QUEUED
    assert record.checkpoint
    assert record.checkpoint.nfe == record.progress.nfe_spent
    start()
    wait_for(lambda: desk.record(job).progress.nfe_spent > record.progress.nfe_spent)
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert (resumed.from_nfe, resumed.nfe_redone) == (record.checkpoint.nfe, 0)


def test_a_worker_told_to_stop_while_it_loads_ends_well_and_is_no_trouble(redis: Redis, start: Start) -> None:
    worker = start(program="tests.workers.stuck")
    wait_for(lambda: engine_of(worker.pid))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    assert not redis.exists(trouble_key("shapes"))
    assert redis.scard(WORKERS_KEY) == 0


def held(start: Start, folder: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """A worker, and the server that its engines are forked from, held up while that imports the libraries."""
    path = str(Path(__file__).parents[1] / "held")
    worker = start(PYTHONPATH=path, HELD_MODULE="models", HELD_FOLDER=str(folder))
    wait_for((folder / "reached").exists)
    [server] = [child for child in children(worker.pid) if "forkserver" in command_of(child)]
    return worker, server


def test_a_stop_of_all_processes_of_a_worker_at_once_is_no_trouble(
    redis: Redis, start: Start, tmp_path: Path
) -> None:
    worker, server = held(start, tmp_path)
    for pid in (server, worker.pid):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    assert "forkserver" in command_of(server), "it ended by itself"
    (tmp_path / "go").touch()
    assert worker.wait(timeout=60) == 0
    assert not redis.exists(trouble_key("shapes"))
    assert redis.scard(WORKERS_KEY) == 0


def test_a_worker_whose_engines_cannot_be_forked_says_so(redis: Redis, start: Start, tmp_path: Path) -> None:
    worker, _ = held(start, tmp_path)
    (tmp_path / "go").touch()
    assert worker.wait(timeout=60) == 1
    assert "the model cannot be loaded: " in (tmp_path / "workers.log").read_text()
    assert redis.exists(trouble_key("shapes"))


def test_a_worker_restarted_between_two_jobs_leaves_both_whole(desk: Desk, start: Start) -> None:
    pictures: list[str] = []
    for _ in range(2):
        worker = start()
        job = desk.submit()
        wait_for(lambda job=job: desk.record(job).status.final)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
        record, events = desk.record(job), desk.events(job)
        assert (record.status, record.attempts) == (Status.SUCCEEDED, 1)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert record.result
        pictures.append(record.result.images[0].sha256)
    assert pictures[0] == pictures[1]
    assert desk.redis.scard(WORKERS_KEY) == 0


def test_a_redis_that_dies_and_comes_back_stops_nothing(
    settings: Settings, runner: Runner, start: Start, short_dir: Path
) -> None:
    with Valkey(short_dir) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        desk = Desk(redis, settings.model_copy(update={"redis_url": valkey.url}), runner)
        start(valkey.url)
        wait_for(lambda: any(are_ready(redis)))
        jobs = [desk.submit(budget={"nfe": 2000}), desk.submit()]
        wait_for(lambda: desk.record(jobs[0]).progress.nfe_spent > 25)
        valkey.kill()
        time.sleep(JOB_TTL + 2)
        valkey.start()
        for job in jobs:
            wait_for(lambda job=job: desk.record(job).status.final)
            assert desk.record(job).status is Status.SUCCEEDED
            seqs = [event.seq for event in desk.events(job)]
            assert seqs == list(range(1, len(seqs) + 1))
        valkey.kill()
        time.sleep(1)
        valkey.start()
        after = desk.submit()
        wait_for(lambda: desk.record(after).status is Status.SUCCEEDED)


def test_workers_whose_redis_is_gone_still_stop_when_told(
    settings: Settings, runner: Runner, start: Start, short_dir: Path
) -> None:
    with Valkey(short_dir) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        desk = Desk(redis, settings.model_copy(update={"redis_url": valkey.url}), runner)
        workers = [start(valkey.url, ROLLOVER_GRACE_SECONDS="2") for _ in range(2)]
        wait_for(lambda: are_ready(redis) == [True, True])
        job = desk.submit(budget={"nfe": ENDLESS})
        wait_for(lambda: desk.record(job).progress.nfe_spent > 25)
        valkey.kill()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(timeout=60) in {0, 1}


def are_ready(redis: Redis) -> list[bool]:
    """Whether each worker says so."""
    names: Any = redis.smembers(WORKERS_KEY)
    beats: Any = [redis.get(worker_key(name)) for name in names]
    return ['"ready"' in (beat or "") for beat in beats]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ROLLOVER_MODEL_PATHS", "shapes=/nowhere", "the model cannot be loaded: no model at /nowhere"),
        ("ROLLOVER_REDIS_URL", "unix:///nowhere.sock", "no Redis at unix:///nowhere.sock"),
        (
            "ROLLOVER_REDIS_URL",
            "redis://me:hunter2@127.0.0.1:1/0?password=hunter2",
            "worker: no Redis at 127.0.0.1:1/0: ",
        ),
        ("ROLLOVER_REDIS_URL", "", "ROLLOVER_REDIS_URL is not set"),
        ("ROLLOVER_PORT", "many", "worker: ROLLOVER_PORT: Input should be a valid integer"),
        ("ROLLOVER_REDIS_URL", "valkey://:hunter2@h:6379/0", "a Redis URL starts with"),
        ("ROLLOVER_WEBHOOK_SECRET", "hunter2", "at least 32"),
        ("ROLLOVER_HANG_SECONDS", "5", "must be less than ROLLOVER_HANG_SECONDS"),
    ],
)
def test_a_worker_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    redis_url: str,
    setting: str,
    value: str,
    message: str,
) -> None:
    from workers import main  # noqa: PLC0415

    monkeypatch.setattr(main, "configure", lambda **_: None)  # the log of this process is pytest's
    monkeypatch.setenv("ROLLOVER_REDIS_URL", redis_url)
    monkeypatch.setenv("ROLLOVER_REWARD_URL", "https://example.com/score")
    monkeypatch.setenv(setting, value)
    if not value:
        monkeypatch.delenv(setting)
    assert main.main(["--model", "shapes"]) in {1, 2}
    said = capsys.readouterr().err
    assert message in said
    assert "hunter2" not in said


def test_a_worker_that_starts_while_redis_says_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from workers import main  # noqa: PLC0415

    monkeypatch.setattr(main, "configure", lambda **_: None)
    monkeypatch.setattr(hold, "SOCKET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("ROLLOVER_REDIS_URL", f"redis://{address}")
        assert main.main(["--model", "shapes"]) == 1
    assert f"worker: no Redis at redis://{address}: Timeout" in capsys.readouterr().err
