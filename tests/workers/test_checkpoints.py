"""An execution that vanishes costs the work since its last checkpoint, and nothing else."""

import json
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.events import CandidateEvent, Resumed
from contracts.jobs import Record, Status, hash_fields
from contracts.keys import checkpoints_path, preview_path, trace_path
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from models.rewards.brightness import Brightness
from sampling.strategies import STRATEGIES
from tests.workers.conftest import Deadly, Desk, Faulty, Gate, KilledError, cancel
from workers.checkpoints import EVERY_NFE, Checkpoints, Standing
from workers.failures import StorageFailedError
from workers.messages import Order
from workers.store import ArtifactStore, replace_file

OTHER_EACH_TIME = {"seq", "at", "preview_url"}
SEARCHES: list[dict[str, Any]] = [
    {},
    {"search": {"strategy": "rbf", "width": 3}, "num_images": 3},
    {"search": {"strategy": "rbf", "mode": "upstream"}, "budget": {"nfe": 90}},
    {"search": {"strategy": "rbf", "chains": 2, "initial_noises": 3, "start": "top"}, "previews": "none"},
    {"search": {"strategy": "smc"}, "sampler": {"steps": 4}},
    {"sampler": {"reward_guidance": 30.0}},
]
KILLED: list[tuple[dict[str, Any], float]] = [
    *product(SEARCHES, [0.0, 0.1, 0.5, 0.99]),
    ({"search": {"strategy": "base"}}, 0.5),
    ({"search": {"strategy": "best_of_n"}}, 0.5),
    ({"search": {"strategy": "zero_order", "steps": 1, "correlation": 0.0, "finish_steps": 2}}, 0.1),
    ({"search": {"strategy": "sop"}, "budget": {"nfe": 70}}, 0.5),
    ({"search": {"strategy": "code"}}, 0.5),
    ({"search": {"strategy": "svdd"}}, 0.5),
    # A generation has the number of the level that the finish is at.
    ({"search": {"strategy": "evolution", "generations": 6}, "sampler": {"steps": 5}}, 0.8),
]
"""Searches, and the part of their reward's calls after which their execution vanishes."""


def killed(desk: Desk, job: str, at_call: int) -> None:
    """Run a job until a call of its reward, at which its execution vanishes."""
    desk.runner.engine.rewards["brightness"] = Deadly(at_call)
    with pytest.raises(KilledError):
        desk.runner.run(job)
    desk.runner.engine.rewards["brightness"] = Brightness()


def files(desk: Desk, job: str) -> list[str]:
    folder = desk.file(checkpoints_path(job))
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def story(desk: Desk, job: str) -> list[dict[str, Any]]:
    """What the stream tells of the search itself."""
    events = [json.loads(text) for text in desk.texts(job)]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = [event for event in events if event["type"] in {"candidate", "level"}]
    return [{key: value for key, value in event.items() if key not in OTHER_EACH_TIME} for event in told]


def outcome(record: Record) -> tuple[object, ...]:
    assert record.status is Status.SUCCEEDED, record.error
    assert record.result
    assert record.usage
    images = [(image.sha256, image.reward, image.nfe, image.held_out) for image in record.result.images]
    counted = {"nfe_spent", "nfe_unused", "model_forwards", "reward_calls", "gradients"}
    spent = record.usage.model_dump(include=counted)
    return images, record.result.levels, record.result.first_reward, record.result.stopped_by, spent


def previews(desk: Desk, job: str) -> list[bytes | None]:
    levels = [json.loads(text) for text in desk.texts(job) if '"type":"level"' in text]
    paths = [desk.file(preview_path(job, level["seq"])) for level in levels]
    return [path.read_bytes() if path.exists() else None for path in paths]


def test_every_strategy_is_disturbed() -> None:
    assert {body.get("search", {}).get("strategy", "rbf") for body, _ in KILLED} == set(STRATEGIES)


@pytest.mark.parametrize(("body", "part"), KILLED, ids=str)
def test_a_job_whose_execution_vanishes_ends_as_if_nothing_had_been(
    desk: Desk, body: dict[str, Any], part: float
) -> None:
    body = {"held_out": ["sharpness"], **body}
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    whole = desk.run(**body)
    job = desk.submit(**body)
    killed(desk, job, int(part * (1000 - counting.calls_left)))
    published = desk.record(job).progress.nfe_spent
    desk.runner.run(job)
    record = desk.record(job)
    assert outcome(record) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    trace = [text for text in desk.texts(job) if '"type":"candidate"' in text]
    assert desk.file(trace_path(job)).read_text().splitlines() == trace
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert resumed.from_nfe + resumed.nfe_redone == published
    assert record.usage
    assert record.usage.nfe_redone == resumed.nfe_redone <= 2 * EVERY_NFE
    if body.get("previews") != "none":
        assert previews(desk, job) == previews(desk, whole.id)


def test_a_job_may_vanish_again_and_again(desk: Desk) -> None:
    whole = desk.run(budget={"nfe": 120})
    job = desk.submit(budget={"nfe": 120})
    for _ in range(4):
        killed(desk, job, 11)
        assert desk.record(job).losses == 1
    desk.runner.run(job)
    assert outcome(desk.record(job)) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    resumed = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert len(resumed) == 4
    usage = desk.record(job).usage
    assert usage
    assert usage.nfe_redone == sum(event.nfe_redone for event in resumed)


@pytest.mark.parametrize("calls", [0, 3])
def test_one_that_is_canceled_before_it_comes_to_where_it_was_has_spent_what_was_told(
    desk: Desk, calls: int
) -> None:
    job = desk.submit(budget={"nfe": 400})
    killed(desk, job, 24)
    before = desk.record(job)
    assert before.checkpoint
    assert before.progress.nfe_spent > before.checkpoint.nfe + 2 * calls
    if calls:
        gate = desk.runner.engine.rewards["brightness"] = Gate(calls - 1)
        thread = threading.Thread(target=desk.runner.run, args=[job])
        thread.start()
        for _ in range(calls):
            gate.reached.acquire(timeout=30)
        desk.runner.orders.add((job, Order.CANCEL))
        gate.passes.release()
        thread.join(60)
    else:
        cancel(desk, job)
        desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.CANCELED
    assert record.usage
    assert record.usage.nfe_spent == record.progress.nfe_spent == before.progress.nfe_spent
    assert record.usage.nfe_redone == 2 * calls


def test_one_that_gets_no_further_is_counted(desk: Desk) -> None:
    job = desk.submit()
    for times in (1, 2, 3):
        killed(desk, job, 0)
        assert desk.record(job).losses == times


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (IndexError("list index out of range"), None),
        (RuntimeError("shape is invalid"), None),
    ],
)
def test_a_state_whose_reading_fails_does_not_end_the_engine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, fault: Exception, code: str | None
) -> None:
    def failing(*_: object) -> Standing:
        raise fault

    job = desk.submit()
    killed(desk, job, 10)
    spent = desk.record(job).progress.nfe_spent
    assert desk.record(job).checkpoint
    monkeypatch.setattr("workers.checkpoints.loads", failing)
    desk.runner.run(job)
    record = desk.record(job)
    assert record.usage
    if code:
        assert record.error
        assert (record.error.code, record.usage.nfe_spent) == (code, spent)
    else:
        assert record.status is Status.SUCCEEDED, record.error
        assert record.usage.nfe_redone == spent


def test_progress_never_goes_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.execution.EVERY_NFE", 1000)
    job = desk.submit(search={"strategy": "best_of_n"})
    killed(desk, job, 0)
    before = desk.record(job).progress.nfe_spent
    assert before > 20
    killed(desk, job, 0)
    assert desk.record(job).progress.nfe_spent == before


def test_a_state_is_saved_at_every_level_and_every_25_nfe(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []
    write = Checkpoints.write

    def spied(self: Checkpoints, standing: Standing) -> object:
        saved.append((standing.nfe, len(standing.state.levels)))
        return write(self, standing)

    monkeypatch.setattr(Checkpoints, "write", spied)
    # One by one: rounds that wait together are published and saved together.
    monkeypatch.setattr("workers.publish._rest", lambda _: ())
    record = desk.run(budget={"nfe": 300}, search={"strategy": "rbf", "chains": 1})
    spent = [nfe for nfe, _ in saved]
    assert all(later - earlier <= EVERY_NFE for earlier, later in zip([0, *spent], spent, strict=False))
    assert record.result
    assert {levels for _, levels in saved} == set(range(1, len(record.result.levels) + 1))


def test_of_a_job_that_ended_well_the_last_state_is_kept(desk: Desk) -> None:
    record = desk.run()
    assert files(desk, record.id) == ["1-60.safetensors"]
    assert record.checkpoint
    assert (record.checkpoint.attempt, record.checkpoint.nfe) == (1, 60)


def test_of_others_nothing_is_kept(desk: Desk) -> None:
    job = desk.submit()
    killed(desk, job, 8)
    assert files(desk, job)
    desk.runner.engine.rewards["brightness"] = Faulty(float("nan"))
    desk.runner.run(job)
    assert desk.record(job).status is Status.FAILED
    assert files(desk, job) == []


def test_a_cancel_of_a_job_that_vanished_keeps_its_last_state(desk: Desk) -> None:
    job = desk.submit()
    killed(desk, job, 8)
    args = write_args(allowed=[Status.RUNNING], fields=hash_fields(cancel_requested=True))
    desk.redis.eval(WRITE_SCRIPT, 2, *write_keys(job), *args)
    saved = desk.record(job).checkpoint
    assert saved
    desk.runner.engine.rewards["brightness"] = Faulty(RuntimeError("nothing more is scored"))
    desk.runner.run(job)
    record = desk.record(job)
    assert (record.status, record.error) == (Status.CANCELED, None)
    assert record.result
    assert record.usage
    assert record.usage.nfe_spent == saved.nfe
    seen = [event for event in desk.events(job) if isinstance(event, CandidateEvent)]
    assert record.result.images[0].reward == max(event.reward for event in seen[: saved.nfe])
    assert files(desk, job) == []


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, None])
def test_a_checkpoint_that_cannot_be_read_costs_the_work_and_no_more(
    desk: Desk, content: bytes | None
) -> None:
    whole = desk.run()
    job = desk.submit()
    killed(desk, job, 8)
    [name] = files(desk, job)
    path = desk.file(checkpoints_path(job)) / name
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    desk.runner.run(job)
    assert outcome(desk.record(job)) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert resumed.from_nfe == 0


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_state_that_is_there_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    job = desk.submit()
    killed(desk, job, 8)
    saved = desk.record(job).checkpoint
    assert saved
    get, faults = ArtifactStore.get, [TimeoutError("the read timed out")] * refusals

    def stumbling(self: ArtifactStore, path: str) -> bytes:
        if faults:
            raise faults.pop()
        return get(self, path)

    monkeypatch.setattr(ArtifactStore, "get", stumbling)
    monkeypatch.setattr("workers.store.PAUSES", (0.0, 0.0))
    desk.runner.run(job)
    record = desk.record(job)
    resumed = [event.from_nfe for event in desk.events(job) if isinstance(event, Resumed)]
    if refusals == 1:
        assert (record.status, resumed) == (Status.SUCCEEDED, [saved.nfe])
    else:
        assert record.error
        assert (record.error.code, resumed) == ("storage_failed", [])
        assert record.usage
        assert record.usage.nfe_spent == record.progress.nfe_spent > 0


def test_patience_is_not_renewed_by_a_crash(desk: Desk) -> None:
    body = {"budget": {"nfe": 200, "patience": 30}}
    whole = desk.run(**body)
    assert whole.result
    assert whole.result.stopped_by == "patience"
    job = desk.submit(**body)
    killed(desk, job, 3)
    desk.runner.run(job)
    assert outcome(desk.record(job)) == outcome(whole)


def test_time_is_counted_over_executions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = desk.submit(budget={"nfe": 60, "seconds": 50})
    monkeypatch.setattr("workers.limits.Limits.elapsed", property(lambda limits: limits.before + 30))
    killed(desk, job, 8)
    desk.runner.run(job)
    result = desk.record(job).result
    assert result
    assert result.stopped_by == "seconds"


class Greedy(Brightness):
    """Brightness for which there is memory for so many pictures."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().score(images, prompt)


def test_a_search_that_needs_too_much_memory_goes_on_with_half(desk: Desk) -> None:
    whole = desk.run(search={"strategy": "rbf", "width": 4})
    halved: list[bool] = []
    desk.runner.engine.halved = lambda: halved.append(True)
    greedy = desk.runner.engine.rewards["brightness"] = Greedy(5)
    record = desk.run(search={"strategy": "rbf", "width": 4})
    assert greedy.asked[:4] == [25, 12, 6, 3]
    assert len(halved) == 3
    assert max(greedy.asked[3:]) == 3
    assert record.status is Status.SUCCEEDED
    assert record.usage
    assert record.usage.nfe_spent == record.usage.reward_calls == 60
    assert [step["nfe"] for step in story(desk, record.id) if step["type"] == "candidate"] == list(
        range(1, 61)
    )
    assert record.result
    assert whole.result
    assert record.result.images[0].nfe == whole.result.images[0].nfe


def test_memory_that_does_not_do_for_one_fails_the_job(desk: Desk) -> None:
    greedy = desk.runner.engine.rewards["brightness"] = Greedy(0)
    record = desk.run()
    assert record.error
    assert record.error.code == "out_of_memory"
    assert greedy.asked == [25, 12, 6, 3, 1]


def test_a_store_that_stumbles_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [OSError(5, "Input/output error")] * 3

    def stumbling(path: Path, content: bytes) -> None:
        if faults:
            raise faults.pop()
        replace_file(path, content)

    monkeypatch.setattr("workers.store.replace_file", stumbling)
    monkeypatch.setattr("workers.store.PAUSES", (0.0, 0.0, 0.0))
    assert desk.run().status is Status.SUCCEEDED
    assert faults == []


def test_a_file_is_written_whole_or_not_at_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    store = desk.runner.store
    store.put("job/a", b"old")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("contracts.artifacts.os.fsync", full)
    monkeypatch.setattr("workers.store.PAUSES", (0.0,))
    with pytest.raises(StorageFailedError, match="job/a"):
        store.put("job/a", b"new and longer")
    monkeypatch.undo()
    assert store.get("job/a") == b"old"
    assert [path.name for path in desk.file("job").iterdir()] == ["a"]


def test_an_order_for_another_job_is_not_heeded(desk: Desk) -> None:
    desk.runner.orders.add(("gen_other", Order.CANCEL))
    assert desk.run().status is Status.SUCCEEDED
