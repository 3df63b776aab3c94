"""A supervisor and its engine, a real process, which is killed, hangs, faults and does not listen."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from app.submission import SETTLE_SCRIPT
from contracts.beats import WorkerState
from contracts.events import Canceled, CandidateEvent, Failed, Resumed
from contracts.jobs import Checkpoint, Status, hash_fields
from contracts.keys import (
    charges_key,
    checkpoints_path,
    image_path,
    job_key,
    spent_key,
    totals_key,
    trace_path,
    trouble_key,
)
from contracts.settings import Settings
from contracts.totals import Totals
from models.rewards.brightness import Brightness
from tests.conftest import ENDLESS
from tests.workers import sabotage
from tests.workers.conftest import Desk, Faulty, cancel
from workers.hold import Hold, connect
from workers.messages import Ending, Order, Spec, Stage
from workers.resident import EngineRefusedError, EngineStartError, Grace, Program, Resident, Watch
from workers.settings import WorkerSettings
from workers.store import ArtifactStore
from workers.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
BODY: dict[str, Any] = {"reward": sabotage.NAME, "budget": {"nfe": 100}}


@pytest.fixture
def shown() -> list[WorkerState]:
    return []


@pytest.fixture
def supervisor(
    settings: Settings, tiny_model: Path, shown: list[WorkerState], tmp_path: Path
) -> Iterator[Supervisor]:
    """A supervisor and its engine, not yet started, with a sabotaged reward."""
    tmp_path.mkdir(exist_ok=True)
    worker_settings = WorkerSettings(device="cpu", model_paths={"shapes": tiny_model})
    spec = Spec("shapes", "worker-1", settings.redis_url or "", settings, worker_settings)
    engine = Resident(spec, threading.Event(), program=sabotage.engine)
    with connect(settings.redis_url or "") as connection:
        store = ArtifactStore.open(settings.artifacts)
        yield Supervisor(connection, engine, store, settings.max_attempts, shown.append)
        engine.stopping.set()  # a test that failed may have left it running
    engine.kill()


def impatient(supervisor: Supervisor, **seconds: float) -> None:
    """Have it give up what hangs, or does not heed it, sooner than by default.

    Only where something does: what a busy machine holds up must not be taken for that.
    """
    spec = supervisor.engine.spec
    soon = spec.worker_settings.model_copy(update=seconds)
    supervisor.engine.spec = replace(spec, worker_settings=soon)


def undisturbed(desk: Desk) -> str:
    """Digest of the picture that the job has when nothing happens."""
    result = desk.run(budget={"nfe": 100}).result
    assert result
    return result.images[0].sha256


def told_once(desk: Desk, job: str) -> bool:
    events = [json.loads(text) for text in desk.texts(job)]
    seqs = [event["seq"] for event in events]
    candidates = [event["nfe"] for event in events if event["type"] == "candidate"]
    return seqs == list(range(1, len(seqs) + 1)) and candidates == list(range(1, len(candidates) + 1))


def until(condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Meanwhile:
    """A supervisor that runs a job while the test does something else."""

    def __init__(self, supervisor: Supervisor, job: str) -> None:
        self.ending: Ending | None = None
        self._thread = threading.Thread(target=self._run, args=(supervisor, job), daemon=True)
        self._thread.start()

    def _run(self, supervisor: Supervisor, job: str) -> None:
        self.ending = supervisor.run(job)

    def join(self) -> Ending | None:
        self._thread.join(timeout=100)
        assert not self._thread.is_alive()
        return self.ending


def test_an_engine_killed_by_hand_is_replaced_and_the_job_goes_on(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    sabotage.order(tmp_path, slow=1)
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).checkpoint)
    first, hashes = supervisor.engine.pid, supervisor.engine.spec.hashes
    assert first
    assert any("tiny-shapes" in path for path, *_ in hashes), "the next engine would read its weights twice"
    os.kill(first, signal.SIGKILL)
    (tmp_path / sabotage.FILE).unlink()
    until(lambda: desk.record(job).attempts == 2)
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert record.status is Status.SUCCEEDED, record.error
    assert supervisor.engine.pid != first
    assert record.result
    assert record.result.images[0].sha256 == undisturbed(desk)
    assert told_once(desk, job)
    assert record.usage
    assert record.usage.nfe_spent == 100
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert resumed.from_nfe > 0
    assert record.usage.nfe_redone == resumed.nfe_redone


@pytest.mark.parametrize("how", ["die", "hang", "fault"])
def test_an_engine_that_ends_itself_or_hangs_is_replaced(
    desk: Desk, supervisor: Supervisor, tmp_path: Path, how: str
) -> None:
    if how == "hang":
        impatient(supervisor, hang_seconds=12)
    sabotage.order(tmp_path, at=20, how=how, once=True)
    job = desk.submit(**BODY)
    assert supervisor.run(job) is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.attempts) == (Status.SUCCEEDED, 2), record.error
    assert record.result
    assert record.result.images[0].sha256 == undisturbed(desk)
    assert told_once(desk, job)


def test_a_job_that_kills_every_engine_ends_as_lost(
    desk: Desk, supervisor: Supervisor, shown: list[WorkerState], tmp_path: Path
) -> None:
    sabotage.order(tmp_path, at=1, how="die")
    job = desk.submit(**BODY)
    assert supervisor.run(job) is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.attempts) == (Status.FAILED, 3)
    assert record.error
    assert record.error.code == "worker_lost"
    assert isinstance(desk.events(job)[-1], Failed)
    assert shown.count(WorkerState.LOADING) == 3
    (tmp_path / sabotage.FILE).unlink()
    after = desk.submit(**BODY)
    assert supervisor.run(after) is Ending.DONE
    assert desk.record(after).status is Status.SUCCEEDED


def test_a_lost_job_keeps_the_best_of_its_last_state(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.max_attempts = 1
    sabotage.order(tmp_path, slow=1)
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).checkpoint)
    assert supervisor.engine.pid
    os.kill(supervisor.engine.pid, signal.SIGKILL)
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert record.error
    assert (record.status, record.error.code, record.attempts) == (Status.FAILED, "worker_lost", 2)
    assert told_once(desk, job)
    candidates = [event for event in desk.events(job) if isinstance(event, CandidateEvent)]
    assert record.usage
    assert record.usage.nfe_spent == record.progress.nfe_spent == len(candidates)
    assert record.checkpoint
    assert record.result
    assert record.result.stopped_by == "error"
    [image] = record.result.images
    assert image.reward == max(each.reward for each in candidates[: record.checkpoint.nfe])
    content = desk.file(image_path(job, 0, "png")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == image.sha256
    assert len(desk.file(trace_path(job)).read_text().splitlines()) == len(candidates)
    assert not list(desk.file(checkpoints_path(job)).iterdir())


def test_a_lost_job_of_which_no_result_can_be_made_ends_all_the_same(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.max_attempts = 1
    sabotage.order(tmp_path, at=1, how="die")  # when the pictures found are judged
    job = desk.submit(held_out=[sabotage.NAME])
    assert supervisor.run(job) is Ending.DONE
    record = desk.record(job)
    assert record.error
    assert (record.status, record.error.code, record.attempts) == (Status.FAILED, "worker_lost", 2)
    assert record.result is None
    assert charged(desk, job) == 60


def test_a_lost_job_whose_cancel_was_asked_for_is_canceled_with_its_best(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient(supervisor, grace_seconds=6)
    sabotage.order(tmp_path, at=20, how="hang")
    supervisor.max_attempts = 1
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).progress.nfe_spent >= 25 + 18 * 2)
    cancel(desk, job)
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.error) == (Status.CANCELED, None)
    assert record.result
    assert record.result.stopped_by == "canceled"


def test_a_reward_that_hangs_each_time_fails_the_job_by_its_name(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient(supervisor, hang_seconds=12)
    supervisor.max_attempts = 1
    sabotage.order(tmp_path, at=1, how="hang")
    job = desk.submit(**BODY)
    assert supervisor.run(job) is Ending.DONE
    record = desk.record(job)
    assert record.error
    assert (record.error.code, record.attempts) == ("reward_failed", 1)
    assert f"reward '{sabotage.NAME}' gave no answer within 12 s" in record.error.detail
    assert "ROLLOVER_HANG_SECONDS" in record.error.detail


def test_a_reward_is_not_blamed_for_another_jobs_hang_or_another_death(
    desk: Desk, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str | None] = [sabotage.NAME, sabotage.NAME, None]

    def run(*_: object) -> Ending:
        supervisor.engine.hung_in = lost.pop(0)
        return Ending.LOST

    monkeypatch.setattr(supervisor.engine, "run", run)
    monkeypatch.setattr(supervisor, "_has_engine", lambda _: True)
    supervisor.max_attempts = 2
    hung, mixed, other = desk.submit(), desk.submit(), desk.submit()
    desk.redis.hset(job_key(other), mapping={"status": "running", "attempts": 2, "lost": 1})
    codes: list[str] = []
    for job in (hung, other):
        supervisor.run(job)
        error = desk.record(job).error
        assert error
        codes.append(error.code)
    lost[:] = [None, sabotage.NAME]
    supervisor.run(mixed)
    error = desk.record(mixed).error
    assert error
    assert [*codes, error.code] == ["reward_failed", "worker_lost", "worker_lost"]


def test_a_reward_that_raised_is_not_waited_for_any_more(desk: Desk) -> None:
    asked: list[str | None] = []
    engine = desk.runner.engine
    engine.asking = asked.append
    engine.rewards["brightness"] = Faulty(ValueError("no"))
    desk.run()
    assert asked == ["brightness", None]
    asked.clear()
    engine.rewards["brightness"], engine.rewards["sharpness"] = Brightness(), Faulty(ValueError("no"))
    assert desk.run(held_out=["sharpness"]).status is Status.SUCCEEDED
    assert asked[-2:] == ["sharpness", None]
    asked.clear()
    engine.needs = {"colorfulness": {"nonsense": 1}}
    assert desk.run(reward="colorfulness").status is Status.FAILED
    assert asked == ["colorfulness", None]


def test_a_jobs_own_error_is_not_tried_again(desk: Desk, supervisor: Supervisor) -> None:
    job = desk.submit(prompt="good morning", reward="scene_match")
    supervisor.run(job)
    record = desk.record(job)
    assert record.error
    assert (record.error.code, record.attempts) == ("reward_failed", 1)


def test_a_cancel_ends_the_job_within_a_step(
    desk: Desk, supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, seen = supervisor.wanted, list[Order | None]()

    def wanted(job_id: str, stage: Stage) -> Order | None:
        seen.append(look(job_id, stage))
        return seen[-1]

    monkeypatch.setattr(supervisor, "wanted", wanted)
    sabotage.order(tmp_path, at=4, how="wait")
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).progress.nfe_spent == 25 + 2 * 2)
    cancel(desk, job)
    until(lambda: seen.count(Order.CANCEL) > 1)  # between two looks it tells the engine
    (tmp_path / sabotage.FILE).unlink()
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert record.status is Status.CANCELED
    assert record.result
    assert record.attempts == 1
    assert record.progress.nfe_spent == 25 + 3 * 2


def test_a_step_that_does_not_heed_a_cancel_is_killed_and_the_best_is_kept(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient(supervisor, grace_seconds=6)
    supervisor.mend()
    sabotage.order(tmp_path, at=20, how="hang", once=True)
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).progress.nfe_spent >= 25 + 18 * 2)
    cancel(desk, job)
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.attempts) == (Status.CANCELED, 2)
    assert record.result
    assert record.result.stopped_by == "canceled"
    assert told_once(desk, job)


def test_a_cancel_ends_a_job_whose_reward_loads_and_leaves_its_engine_alone(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient(supervisor, grace_seconds=1)
    sabotage.order(tmp_path, at=0, how="wait")
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).status is Status.RUNNING)
    engine = supervisor.engine.pid
    cancel(desk, job)
    until(lambda: desk.record(job).status is Status.CANCELED)
    time.sleep(1.5)
    (tmp_path / sabotage.FILE).unlink()
    assert running.join() is Ending.DONE
    assert supervisor.engine.pid == engine
    assert [event.type for event in desk.events(job)] == ["queued", "started", "canceled"]
    assert desk.record(job).usage is None


def test_a_cancel_keeps_the_best_so_far_where_its_reward_must_be_loaded_again(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient(supervisor, grace_seconds=1)
    sabotage.order(tmp_path, slow=1)
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).checkpoint)
    assert supervisor.engine.pid
    sabotage.order(tmp_path, at=0, how="wait")
    os.kill(supervisor.engine.pid, signal.SIGKILL)
    until(lambda: any(isinstance(event, Resumed) for event in desk.events(job)))
    cancel(desk, job)
    time.sleep(1.5)
    (tmp_path / sabotage.FILE).unlink()
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.attempts) == (Status.CANCELED, 2)
    assert record.result


@pytest.mark.parametrize("killed", [False, True])
def test_a_result_that_takes_longer_than_the_grace_is_waited_for(
    desk: Desk, supervisor: Supervisor, tmp_path: Path, *, killed: bool
) -> None:
    impatient(supervisor, grace_seconds=3)
    sabotage.order(tmp_path, at=1, how="wait")  # when the pictures found are judged
    job = desk.submit(held_out=[sabotage.NAME], budget={"nfe": ENDLESS})
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).checkpoint)
    cancel(desk, job)
    if killed:  # the next engine hears of the cancel before it has read the state
        assert supervisor.engine.pid
        os.kill(supervisor.engine.pid, signal.SIGKILL)
        until(lambda: desk.record(job).attempts == 2)
    time.sleep(3.5)
    (tmp_path / sabotage.FILE).unlink()
    assert running.join() is Ending.DONE
    record = desk.record(job)
    assert (record.status, record.attempts) == (Status.CANCELED, 1 + killed)
    assert record.result
    assert record.result.images[0].held_out


def test_a_cancel_need_not_be_heeded_by_what_loads_or_makes_the_result_and_a_stop_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("workers.resident.time.monotonic", lambda: clock[0])

    def overdue(grace: Grace) -> bool:
        clock[0] += 6
        return grace.over

    grace = Grace(seconds=5)
    assert not overdue(grace)
    grace.give(Order.CANCEL)
    assert not overdue(grace)
    grace.enter(Stage.SEARCHING)
    assert not grace.over
    assert overdue(grace)
    grace.enter(Stage.FINISHING)
    assert not overdue(grace)
    grace.enter(Stage.SEARCHING)  # the baseline
    assert not grace.over
    assert overdue(grace)
    grace.enter(Stage.FINISHING)
    grace.give(Order.GIVE_BACK)
    assert not grace.over
    clock[0] += 3
    grace.enter(Stage.SEARCHING)
    clock[0] += 3
    assert grace.over


def test_a_worker_that_stops_gives_its_job_back_where_it_stood(
    desk: Desk, supervisor: Supervisor, tmp_path: Path
) -> None:
    sabotage.order(tmp_path, slow=0.5)
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).progress.nfe_spent > 25)
    supervisor.stopping.set()
    assert running.join() is Ending.GIVEN_BACK
    record = desk.record(job)
    assert (record.status, record.losses) == (Status.QUEUED, 0)
    assert record.checkpoint
    assert record.checkpoint.nfe == record.progress.nfe_spent


def test_a_hung_job_is_given_back_all_the_same(desk: Desk, supervisor: Supervisor, tmp_path: Path) -> None:
    impatient(supervisor, grace_seconds=1.5)
    sabotage.order(tmp_path, at=20, how="hang")
    job = desk.submit(**BODY)
    running = Meanwhile(supervisor, job)
    until(lambda: desk.record(job).progress.nfe_spent >= 25 + 18 * 2)
    supervisor.stopping.set()
    assert running.join() is Ending.GIVEN_BACK
    assert desk.record(job).status is Status.QUEUED
    assert not supervisor.engine.alive


def test_a_worker_that_stops_takes_no_job(desk: Desk, supervisor: Supervisor) -> None:
    supervisor.stopping.set()
    job = desk.submit()
    assert supervisor.run(job) is Ending.GIVEN_BACK
    assert desk.record(job).attempts == 0


def test_an_engine_that_dies_while_idle_is_replaced(supervisor: Supervisor, shown: list[WorkerState]) -> None:
    assert supervisor.mend()
    assert supervisor.engine.pid
    os.kill(supervisor.engine.pid, signal.SIGKILL)
    until(lambda: not supervisor.engine.alive)
    assert supervisor.mend()
    assert supervisor.engine.alive
    assert shown == [WorkerState.LOADING, WorkerState.WARMING, WorkerState.READY] * 2


def test_engines_that_were_replaced_are_counted(desk: Desk, supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.engine.start()
    sabotage.order(tmp_path, at=20, how="die", once=True)
    job = desk.submit(**BODY)
    assert supervisor.run(job) is Ending.DONE
    fields: Any = desk.redis.hgetall(totals_key("shapes"))
    totals = Totals.from_hash(fields)
    assert totals.engine_restarts == 1
    usage = desk.record(job).usage
    assert usage
    assert (totals.jobs["succeeded"], totals.nfe, totals.nfe_redone) == (1, 100, usage.nfe_redone)
    assert totals.seconds["model"] == pytest.approx(usage.seconds.model, abs=1e-5)


def test_an_engine_that_cannot_start_any_more_ends_the_worker(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.START_PAUSES", (0.0, 0.0))
    tries: list[int] = []

    def broken(*_: object) -> str:
        tries.append(1)
        raise EngineStartError("no device")

    monkeypatch.setattr(supervisor.engine, "start", broken)
    assert not supervisor.mend()
    assert (len(tries), supervisor.broken, supervisor.stopping.is_set()) == (2, True, True)


def test_a_model_that_cannot_be_loaded_is_said_at_once(settings: Settings) -> None:
    worker_settings = WorkerSettings(device="cpu", model_paths={"shapes": Path("/nowhere")})
    spec = Spec("shapes", "worker-1", settings.redis_url or "", settings, worker_settings)
    with pytest.raises(EngineRefusedError, match="no model at /nowhere"):
        Resident(spec, threading.Event()).start()


@pytest.mark.parametrize(
    ("program", "doing"),
    [
        (sabotage.never_loaded, "loads its model"),
        (sabotage.never_warm, f"warms up and waits for reward '{sabotage.NAME}'"),
    ],
)
def test_an_engine_that_never_becomes_ready_is_given_up(
    settings: Settings, program: Program, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("shapes", "worker-1", settings.redis_url or "", settings, WorkerSettings())
    engine = Resident(spec, threading.Event(), program)
    heard = engine._heard  # noqa: SLF001

    # Time is short once the engine does what it does for ever: how soon that is depends on the machine.
    def hasty(pipe: Any, now: str, meanwhile: Callable[[], None]) -> object:  # noqa: ANN401
        if now == doing:
            engine.spec = replace(spec, worker_settings=WorkerSettings(start_seconds=0.3))
        return heard(pipe, now, meanwhile)

    monkeypatch.setattr(engine, "_heard", hasty)
    said = f"gave no sign of life for 0.3 s while it {doing}: raise ROLLOVER_START_SECONDS"
    with pytest.raises(EngineStartError, match=said):
        engine.start()
    assert not engine.alive


def begun(desk: Desk) -> str:
    """A job whose first execution has vanished, after some evaluations and before a checkpoint."""
    job = desk.submit(**BODY)
    held = Hold.take(desk.runner.connection, desk.record(job), "worker-0")
    progress = held.record.progress.model_copy(update={"nfe_spent": 7, "best_reward": 0.25})
    held.write(fields=hash_fields(progress=progress))
    return job


def test_a_cancel_is_heeded_while_an_engine_is_replaced(desk: Desk, supervisor: Supervisor) -> None:
    supervisor.engine.program = sabotage.never_warm
    job = begun(desk)
    running = Meanwhile(supervisor, job)
    until(lambda: supervisor.engine.alive)
    cancel(desk, job)
    until(lambda: desk.record(job).status is Status.CANCELED)
    event = desk.events(job)[-1]
    assert isinstance(event, Canceled)
    assert (event.nfe_spent, event.best_reward) == (7, 0.25)
    assert charged(desk, job) == 7
    assert supervisor.engine.alive, "the next job needs it"
    supervisor.stopping.set()
    assert running.join() is Ending.GIVEN_BACK
    assert desk.record(job).status is Status.CANCELED
    assert not desk.redis.exists(trouble_key("shapes")), "a stop is none"


def test_a_canceled_job_does_not_wait_for_an_engine_that_cannot_start(
    desk: Desk, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.START_PAUSES", (0.0,))
    supervisor.engine.program = sabotage.never_warm
    supervisor.engine.spec = replace(
        supervisor.engine.spec, worker_settings=WorkerSettings(start_seconds=0.1)
    )
    job = begun(desk)
    desk.redis.hset(job_key(job), "checkpoint", Checkpoint(attempt=1, nfe=5).model_dump_json())
    cancel(desk, job)
    assert supervisor.run(job) is Ending.DONE
    assert desk.record(job).status is Status.CANCELED


def test_a_process_that_outlives_its_kill_holds_up_nobody(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck:
        """As one that waits for a broken device: no real process can be made to."""

        pid = 12345

        def kill(self) -> None: ...

        def join(self, timeout: float) -> None:
            time.sleep(timeout)

        def is_alive(self) -> bool:
            return True

    monkeypatch.setattr("workers.resident.KILL_SECONDS", 0.01)
    monkeypatch.setattr(supervisor.engine, "_process", Stuck())
    supervisor.engine.kill()
    assert not supervisor.engine.alive
    assert "engine 12345 does not end" in caplog.text


def charged(desk: Desk, job: str) -> int:
    """NFE that an API key pays for a job which has ended and was charged 100 when it was accepted."""
    today = int(cast("Any", desk.redis.time())[0]) // 86_400
    desk.redis.hset(spent_key("key"), mapping={"day": today, "nfe": 100})
    desk.redis.hset(charges_key("key"), job, f"{today}:100")
    desk.redis.eval(SETTLE_SCRIPT, 2, spent_key("key"), charges_key("key"))
    assert not desk.redis.exists(charges_key("key"))
    return int(cast("Any", desk.redis.hget(spent_key("key"), "nfe")))


def test_a_job_lost_for_good_is_charged_what_it_had_spent(desk: Desk, supervisor: Supervisor) -> None:
    job = begun(desk)
    progress = desk.record(job).progress.model_copy(update={"nfe_spent": 60, "baseline_nfe_spent": 8})
    desk.redis.hset(job_key(job), "progress", progress.model_dump_json())
    supervisor.report_lost(job)
    usage = desk.record(job).usage
    assert usage
    assert usage.baseline
    assert (usage.nfe_spent, usage.baseline.nfe_spent) == (60, 8)
    assert usage.seconds.queued > 0
    assert charged(desk, job) == 68
    totals = Totals.from_hash(cast("Any", desk.redis.hgetall(totals_key("shapes"))))
    assert totals.nfe == 68


@pytest.mark.parametrize("cancel_requested", ["0", "1"])
def test_an_end_before_the_first_round_of_an_execution_is_charged_what_others_had_spent(
    desk: Desk, cancel_requested: str
) -> None:
    job = begun(desk)
    desk.redis.hset(job_key(job), mapping={"cancel_requested": cancel_requested})
    desk.runner.engine.rewards[sabotage.NAME] = Faulty(ValueError("no"))
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is (Status.CANCELED if cancel_requested == "1" else Status.FAILED)
    assert charged(desk, job) == 7


def test_a_job_lost_for_good_says_so_once(desk: Desk, supervisor: Supervisor) -> None:
    job = desk.submit()
    supervisor.report_lost(job)
    supervisor.report_lost(job)
    record = desk.record(job)
    assert record.error
    assert record.error.code == "worker_lost"
    assert [event.type for event in desk.events(job)] == ["queued", "failed"]


def test_slow_steps_are_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("workers.resident.time.monotonic", lambda: clock[0])
    watch = Watch(least=5, since=0.0)
    clock[0] = 4.9
    assert not watch.hung
    watch.step()
    watch.step()  # a round has short steps, too
    clock[0] += 39
    assert not watch.hung
    clock[0] += 1
    assert watch.hung


def test_the_supervisor_imports_no_torch() -> None:
    program = "import sys, workers.main; print(sorted({'torch', 'diffusers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
