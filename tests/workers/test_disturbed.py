"""Jobs that fail, are canceled, given back, taken over or repeated."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis as redis_py
import torch
from torch import Tensor

from contracts.events import Canceled, CandidateEvent, Failed, Resumed, Started
from contracts.jobs import Status, hash_fields
from contracts.keys import checkpoint_path, checkpoints_path, image_path, job_key
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from models.rewards.brightness import Brightness
from tests.chaos.processes import full_disk
from tests.workers.conftest import Deadly, Desk, Faulty, Gate
from workers import hold as hold_module
from workers import store as store_module
from workers.hold import Hold, HoldLostError, Reply
from workers.messages import Ending, Order
from workers.store import ArtifactStore


@contextmanager
def running(run: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Run in a thread meanwhile; what it raised is in the list afterwards."""
    raised: list[BaseException] = []

    def caught() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    try:
        yield raised
    finally:
        thread.join(timeout=60)
        assert not thread.is_alive()


def gated(desk: Desk, calls: int) -> Gate:
    """Let the reward through so many times."""
    gate = desk.runner.engine.rewards["brightness"] = Gate(calls)
    return gate


def gapless(desk: Desk, job: str) -> bool:
    seqs = [event.seq for event in desk.events(job)]
    return seqs == list(range(1, len(seqs) + 1))


class Kinked(Brightness):
    """Brightness with a root whose slope is infinite where the reward always is."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return super().score(images, prompt) + (0 * images.to(self.device)).mean((1, 2, 3)).sqrt()


def test_a_gradient_that_is_not_finite_fails_the_job_by_name(desk: Desk) -> None:
    desk.runner.engine.rewards["brightness"] = Kinked()
    error = desk.run(sampler={"reward_guidance": 1.0}).error
    assert error
    assert error.code == "reward_failed"
    assert "gradient of reward 'brightness' is not finite" in error.detail
    assert "set sampler.reward_guidance to 0" in error.detail
    assert desk.run().status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("fault", "code", "detail"),
    [
        (float("nan"), "reward_failed", "nan"),
        (float("inf"), "reward_failed", "inf"),
        (ValueError("cannot read\nthis prompt"), "reward_failed", "cannot read"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "CUDA out of memory"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "can't allocate"),
        (FileNotFoundError(2, "No such file or directory", "/srv/secret"), "reward_failed", "No such file"),
    ],
)
def test_a_failing_reward_fails_the_job_by_name(
    desk: Desk, fault: Exception | float, code: str, detail: str
) -> None:
    desk.runner.engine.rewards["brightness"] = Faulty(fault)
    record = desk.run()
    assert record.status is Status.FAILED
    assert record.error
    assert record.error.code == code
    assert detail in record.error.detail
    assert "reward 'brightness'" in record.error.detail
    assert "\n" not in record.error.detail
    assert "/srv" not in record.error.detail
    last = desk.events(record.id)[-1]
    assert isinstance(last, Failed)
    assert last.error == record.error
    assert gapless(desk, record.id)


def test_a_failing_model_fails_the_job_by_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr("models.modular.ModularSession.velocity", broken)
    record = desk.run()
    assert record.error
    assert (record.error.code, record.error.detail) == ("model_failed", "a kernel failed")


def test_a_store_that_refuses_fails_the_job_by_name(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSES", (0.0,))
    (tmp_path / "a-file").touch()
    desk.runner.store = ArtifactStore.open(str(tmp_path / "a-file" / "below"))
    record = desk.run()
    assert record.error
    assert record.error.code == "storage_failed"


def test_a_job_over_the_servers_time_fails_with_its_best_so_far(desk: Desk) -> None:
    desk.runner.settings = desk.settings.model_copy(update={"job_timeout_seconds": 0})
    record = desk.run()
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "deadline")
    assert record.usage
    assert record.usage.nfe_spent == 25
    assert record.result
    assert record.result.stopped_by == "deadline"
    assert desk.file(image_path(record.id, 0, "png")).exists()


def test_a_failure_on_the_way_keeps_the_best_so_far(desk: Desk) -> None:
    desk.runner.engine.rewards["brightness"] = Deadly(4, ValueError)
    record = desk.run()
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "reward_failed")
    candidates = [event for event in desk.events(record.id) if isinstance(event, CandidateEvent)]
    assert record.usage
    assert record.usage.nfe_spent == len(candidates) == 25 + 3 * 2
    assert record.result
    assert record.result.stopped_by == "error"
    [image] = record.result.images
    assert image.reward == max(candidate.reward for candidate in candidates)
    assert hashlib.sha256(desk.file(image_path(record.id, 0, "png")).read_bytes()).hexdigest() == image.sha256


def test_a_best_so_far_that_cannot_be_stored_does_not_hide_the_failure(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSES", (0.0,))
    desk.runner.engine.rewards["brightness"] = Deadly(4, ValueError)
    with full_disk():
        record = desk.run()
    assert record.error
    assert (record.error.code, record.result) == ("reward_failed", None)


def test_the_engine_works_on_after_a_failure(desk: Desk) -> None:
    desk.runner.engine.rewards["sharpness"] = Faulty(float("nan"))
    assert desk.run(reward="sharpness").status is Status.FAILED
    assert desk.run().status is Status.SUCCEEDED


def test_a_job_canceled_in_the_queue_is_left_alone(desk: Desk) -> None:
    job = desk.submit()
    args = write_args(allowed=[Status.QUEUED], status=Status.CANCELED, events=[Canceled(nfe_spent=0)])
    desk.redis.eval(WRITE_SCRIPT, 2, *write_keys(job), *args)
    before = desk.redis.hgetall(job_key(job))
    desk.runner.run(job)
    assert desk.redis.hgetall(job_key(job)) == before
    assert [event.type for event in desk.events(job)] == ["queued", "canceled"]


def test_a_deleted_job_is_left_alone(desk: Desk) -> None:
    job = desk.submit()
    desk.redis.delete(*write_keys(job))
    desk.runner.run(job)
    assert not desk.redis.exists(*write_keys(job))


def test_a_cancel_keeps_the_best_so_far(desk: Desk) -> None:
    gate = gated(desk, 3)
    job = desk.submit()
    with running(lambda: desk.runner.run(job)):
        for _ in range(4):
            gate.reached.acquire(timeout=30)
        desk.runner.orders.add((job, Order.CANCEL))
        gate.passes.release()
    record, events = desk.record(job), desk.events(job)
    assert record.status is Status.CANCELED
    candidates = [event for event in events if isinstance(event, CandidateEvent)]
    assert len(candidates) == 25 + 3 * 2
    assert record.result
    assert record.result.stopped_by == "canceled"
    assert record.result.images[0].reward == max(candidate.reward for candidate in candidates)
    assert isinstance(events[-1], Canceled)
    assert events[-1].nfe_spent == len(candidates)
    assert gapless(desk, job)
    assert record.checkpoint
    assert record.checkpoint.nfe < len(candidates)  # the end does not wait for a state that nobody needs


def given_back(desk: Desk) -> str:
    """A job that was given back after three calls of the model beyond the first."""
    gate = gated(desk, 3)
    job = desk.submit()
    endings: list[Ending] = []
    with running(lambda: endings.append(desk.runner.run(job))) as raised:
        for _ in range(4):
            gate.reached.acquire(timeout=30)
        desk.runner.orders.add((job, Order.GIVE_BACK))
        gate.passes.release()
    assert (endings, raised) == ([Ending.GIVEN_BACK], [])
    assert desk.record(job).status is Status.QUEUED
    del desk.runner.engine.rewards["brightness"]
    desk.runner.orders.clear()
    return job


def test_a_job_given_back_goes_on_where_it_was(desk: Desk) -> None:
    undisturbed = desk.run()
    job = given_back(desk)
    assert desk.record(job).losses == 0
    spent = desk.record(job).progress.nfe_spent
    assert spent == 25 + 3 * 2
    desk.runner.run(job)
    record, events = desk.record(job), desk.events(job)
    assert record.status is Status.SUCCEEDED
    assert record.attempts == 2
    assert [event.attempt for event in events if isinstance(event, Started)] == [1, 2]
    resumed = [event for event in events if isinstance(event, Resumed)]
    assert [(event.from_nfe, event.nfe_redone) for event in resumed] == [(spent, 0)]
    assert record.usage
    assert (record.usage.nfe_spent, record.usage.nfe_redone) == (60, 0)
    assert gapless(desk, job)
    assert record.result
    assert undisturbed.result
    assert record.result.images[0].sha256 == undisturbed.result.images[0].sha256


def test_a_cancel_of_a_job_given_back_keeps_what_it_found_and_charges_it(desk: Desk) -> None:
    job = given_back(desk)
    args = write_args(allowed=[Status.QUEUED], fields=hash_fields(cancel_requested=True))
    desk.redis.eval(WRITE_SCRIPT, 2, *write_keys(job), *args)
    desk.runner.run(job)
    record = desk.record(job)
    candidates = [event for event in desk.events(job) if isinstance(event, CandidateEvent)]
    assert record.status is Status.CANCELED
    assert record.result
    assert record.result.images[0].reward == max(candidate.reward for candidate in candidates)
    assert desk.file(image_path(job, 0, "png")).exists()
    assert record.usage
    assert record.usage.nfe_spent == len(candidates) == 25 + 3 * 2
    assert not list(desk.file(checkpoints_path(job)).iterdir())


def test_redone_evaluations_add_up_over_attempts(desk: Desk) -> None:
    job = desk.submit()
    for spent in (7, 5):
        held = Hold.take(desk.runner.connection, desk.record(job), "w")
        if held.attempt > 1:
            held.resume(0)
        progress = held.record.progress.model_copy(update={"nfe_spent": spent})
        held.write(fields=hash_fields(progress=progress))
    desk.runner.run(job)
    usage = desk.record(job).usage
    assert usage
    assert usage.nfe_redone == 12


def test_an_execution_that_was_overtaken_writes_nothing_more(desk: Desk) -> None:
    gate = gated(desk, 2)
    job = desk.submit()
    endings: list[Ending] = []
    with running(lambda: endings.append(desk.runner.run(job))) as raised:
        for _ in range(3):
            gate.reached.acquire(timeout=30)
        overtaking = replace(desk.runner, worker="worker-2", engine=replace(desk.runner.engine, rewards={}))
        overtaking.run(job)
        record, events = desk.record(job), desk.texts(job)
        assert record.status is Status.SUCCEEDED
        gate.passes.release(100)
    assert (endings, raised) == ([Ending.DONE], [])
    assert desk.record(job) == record
    assert desk.texts(job) == events
    assert [path.name for path in desk.file(checkpoints_path(job)).iterdir()] == ["2-60.safetensors"]


def test_an_execution_that_was_overtaken_says_so(desk: Desk) -> None:
    gate = gated(desk, 2)
    job = desk.submit()
    endings: list[Ending] = []
    with running(lambda: endings.append(desk.runner.run(job))):
        for _ in range(3):
            gate.reached.acquire(timeout=30)
        Hold.take(desk.runner.connection, desk.record(job), "worker-2")
        gate.passes.release(100)
    assert endings == [Ending.OVERTAKEN]
    assert (desk.record(job).status, desk.record(job).attempts) == (Status.RUNNING, 2)


class Flaky(Hold):
    """A hold whose connection breaks after some writes arrived, or before."""

    breaks: list[str]

    def _send(self, arguments: list[str]) -> Reply:
        fault = self.breaks.pop(0) if self.breaks else None
        if fault == "before":
            raise redis_py.ConnectionError("gone")
        reply = super()._send(arguments)
        if fault == "after":
            raise redis_py.ConnectionError("gone")
        return reply


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_write_that_lost_its_reply_is_done_once(
    desk: Desk, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_module, "LONGEST_PAUSE", 0.0)
    Flaky.breaks = [fault]
    job = desk.submit()
    held = Flaky.take(desk.runner.connection, desk.record(job), "w")
    Flaky.breaks = [fault]
    held.write([Started(attempt=9, worker="again")])
    assert [event.type for event in desk.events(job)] == ["queued", "started", "started"]
    assert held.last_seq == 3


def replies_lost(
    monkeypatch: pytest.MonkeyPatch, applies: Callable[[list[str]], bool], meanwhile: Callable[[], object]
) -> list[list[str]]:
    """Lose the reply to the first write of a kind, which arrives; the writes that lost theirs.

    Args:
        applies: whether a write, by its arguments, is of that kind.
        meanwhile: called before the connection is back.
    """
    send, lost = Hold._send, list[list[str]]()  # noqa: SLF001

    def flaky(self: Hold, arguments: list[str]) -> Reply:
        reply = send(self, arguments)
        if applies(arguments) and not lost:
            lost.append(arguments)
            meanwhile()
            raise redis_py.TimeoutError("no reply")
        return reply

    monkeypatch.setattr(Hold, "_send", flaky)
    return lost


def test_writes_that_arrive_late_and_were_repeated_are_done_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, delayed, late = Hold._send, list[list[str]](), list[list[str]]()  # noqa: SLF001

    def slow(self: Hold, arguments: list[str]) -> Reply:
        """Hold back each first try until the write that follows has been done."""
        if arguments not in delayed:
            delayed.append(arguments)
            raise redis_py.TimeoutError("no reply")
        reply = send(self, arguments)
        while late:
            send(self, late.pop())
        late.append(arguments)
        return reply

    undisturbed = desk.run(baseline=True)
    monkeypatch.setattr(Hold, "_send", slow)
    monkeypatch.setattr(hold_module, "LONGEST_PAUSE", 0.0)
    record = desk.run(baseline=True)
    assert record.status is Status.SUCCEEDED
    assert len(delayed) > 3
    assert gapless(desk, record.id)
    told = [event.nfe for event in desk.events(record.id) if isinstance(event, CandidateEvent)]
    assert told == list(range(1, 61))
    assert record.status_sequence == 1 + len(delayed)
    assert (record.progress, record.events) == (undisturbed.progress, undisturbed.events)


def test_a_give_back_that_lost_its_reply_is_one_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = replies_lost(monkeypatch, lambda arguments: arguments[2] == Status.QUEUED, lambda: None)
    job = given_back(desk)
    assert len(lost) == 1
    assert desk.record(job).attempts == 1


def test_an_overtaken_execution_leaves_the_state_that_the_record_names(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit()
    lost = replies_lost(
        monkeypatch,
        lambda arguments: "checkpoint" in arguments,
        lambda: Hold.take(desk.runner.connection, desk.record(job), "worker-2"),
    )
    assert desk.runner.run(job) is Ending.OVERTAKEN
    assert len(lost) == 1
    named = desk.record(job).checkpoint
    assert named
    assert desk.file(checkpoint_path(job, named.attempt, named.nfe)).exists()


def test_a_redis_that_stays_away_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "LONGEST_PAUSE", 0.0)
    Flaky.breaks = ["before"] * 30
    job = desk.submit()
    Flaky.take(desk.runner.connection, desk.record(job), "w")
    assert desk.record(job).attempts == 1


def test_a_hold_on_an_ended_job_is_refused(desk: Desk) -> None:
    record = desk.run()
    with pytest.raises(HoldLostError):
        Hold.take(desk.runner.connection, record, "late")
