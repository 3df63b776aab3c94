"""A device whose memory is too small: the real model, whose transformer finds no room for many rows."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from contracts.events import CandidateEvent
from contracts.jobs import Status
from models.backend import ModelLoadError
from models.modular import ModularBackend
from models.rewards.brightness import Brightness
from models.rewards.composite import Composite, Part
from tests.workers.conftest import Deadly, Desk, Faulty, KilledError
from workers.engine import Engine
from workers.failures import RewardFailedError
from workers.headroom import MOST, Headroom, Kind
from workers.trial import passes

ROW = 1 << 20
"""Bytes that a row takes in the transformer."""
BODY: dict[str, Any] = {"search": {"strategy": "rbf", "width": 4}}


@dataclass
class Device:
    """Memory of so many rows. It sees every call of the transformer, and refuses those with more."""

    rows: int
    calls: list[int] = field(default_factory=list[int])

    def enter(self, _module: torch.nn.Module, _args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        rows = len(inputs["hidden_states"])
        self.calls.append(rows)
        if rows > self.rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows} MiB.")

    def free(self) -> int:
        return 10 * self.rows * ROW // 9 + 1  # a tenth is left free

    def peak(self, call: Callable[[], object]) -> int:
        self.calls.clear()
        call()
        return max(self.calls, default=0) * ROW


@pytest.fixture
def device(engine: Engine) -> Iterator[Device]:
    """The engine's, with room for 10 rows."""
    device = Device(rows=10)
    assert isinstance(engine.backend, ModularBackend)
    hook = engine.backend.pipeline.transformer.register_forward_pre_hook(device.enter, with_kwargs=True)
    yield device
    hook.remove()


def test_a_search_has_as_many_rows_in_a_call_as_memory_was_measured_to_hold(
    desk: Desk, device: Device
) -> None:
    desk.runner.engine.headroom.memory = device
    halved: list[bool] = []
    desk.runner.engine.halved = lambda: halved.append(True)
    record = desk.run(**BODY)
    assert record.status is Status.SUCCEEDED, record.error
    assert max(device.calls) == 8
    assert halved == []
    assert record.usage
    assert record.usage.nfe_spent == 60
    device.calls.clear()
    desk.run(**BODY)
    assert sum(device.calls) == 60, "the second search of its kind is not measured"


def test_a_kind_is_measured_by_itself() -> None:
    device = Device(rows=10)
    headroom = Headroom(device)
    kind = Kind(64, 64, 1, frozenset({"brightness"}), guided=False)

    def one(rows: int) -> None:
        device.calls.append(rows)

    assert headroom.rows(kind, [one]) == 8
    device.rows = 4
    assert headroom.rows(kind, [one]) == 8
    assert headroom.rows(kind._replace(width=128), [one]) == 4
    headroom.forget()
    assert headroom.rows(kind, [one]) == 4
    assert replace(headroom, most=3, _known={}).rows(kind, [one]) == 3


def test_the_catalogue_may_allow_fewer_rows(desk: Desk, device: Device) -> None:
    desk.runner.engine.headroom = Headroom(most=3)
    assert desk.run(**BODY).status is Status.SUCCEEDED
    assert max(device.calls) == 3


def test_no_request_makes_a_call_of_more_rows_than_a_device_gains_by(desk: Desk, device: Device) -> None:
    device.rows = 1000
    record = desk.run(**BODY | {"budget": {"nfe": 340}, "search": {"initial_noises": 300}})
    assert record.status is Status.SUCCEEDED, record.error
    assert device.calls[:2] == [MOST, 300 - MOST]


def test_each_call_of_a_round_is_a_sign_of_life(desk: Desk, device: Device) -> None:
    desk.runner.engine.headroom = Headroom(most=5)
    told: set[int] = set()
    desk.runner.engine.stepped = lambda: told.add(len(device.calls))
    assert desk.run(**BODY).status is Status.SUCCEEDED
    assert device.calls[:5] == [5] * 5, "the first round"
    assert told == set(range(1, len(device.calls) + 1))


def test_a_long_round_is_told_on_its_way(desk: Desk) -> None:
    desk.runner.engine.headroom = Headroom(most=5)
    job = desk.submit(search={"strategy": "smc"}, sampler={"steps": 3}, budget={"nfe": 184})
    desk.runner.engine.rewards["brightness"] = Deadly(at_call=8)
    with pytest.raises(KilledError):
        desk.runner.run(job)
    record = desk.record(job)
    assert record.progress.nfe_spent == 30
    usage = record.usage_so_far("error")
    assert usage
    assert usage.nfe_spent == 30
    desk.runner.engine.rewards["brightness"] = Brightness()
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.SUCCEEDED
    assert [event.nfe for event in desk.events(job) if isinstance(event, CandidateEvent)] == [*range(1, 185)]
    assert record.usage
    assert (record.usage.nfe_spent, record.usage.nfe_redone) == (184, 30)


def test_after_memory_ran_out_later_searches_begin_with_what_was_left(desk: Desk, device: Device) -> None:
    halved: list[bool] = []
    desk.runner.engine.halved = lambda: halved.append(True)
    assert desk.run(**BODY).status is Status.SUCCEEDED
    assert device.calls[:3] == [25, 12, 6]
    device.calls.clear()
    assert desk.run(**BODY).status is Status.SUCCEEDED
    assert max(device.calls) == 6
    assert len(halved) == 2


def test_a_search_goes_on_in_the_batches_that_it_began_with(desk: Desk, device: Device) -> None:
    desk.runner.engine.headroom = Headroom(most=6)
    whole = desk.run(**BODY).result
    job = desk.submit(**BODY)
    desk.runner.engine.rewards["brightness"] = Deadly(at_call=8)
    with pytest.raises(KilledError):
        desk.runner.run(job)
    desk.runner.engine.rewards["brightness"] = Brightness()
    desk.runner.engine.headroom = Headroom(most=2)
    device.calls.clear()
    desk.runner.run(job)
    record = desk.record(job)
    assert record.attempts == 2
    assert max(device.calls) > 2
    assert whole
    assert record.result
    assert record.result.images[0].sha256 == whole.images[0].sha256


def test_a_baseline_is_held_to_the_rows_of_its_search(desk: Desk, device: Device) -> None:
    desk.runner.engine.headroom = Headroom(most=5)
    record = desk.run(**BODY, baseline=True)
    assert record.result
    assert record.result.baseline
    assert max(device.calls) == 5


def test_warming_up_makes_the_calls_of_a_search_by_default(engine: Engine, device: Device) -> None:
    engine.warm_up()
    assert device.calls == [1]
    assert {"scene_match", "scene_exact"} <= engine.rewards.keys()


def test_a_worker_does_not_start_where_there_is_no_room_for_a_row(engine: Engine, device: Device) -> None:
    device.rows = 0
    with pytest.raises(
        ModelLoadError, match="not enough memory on cpu for one picture of 64 x 64 pixels: set"
    ):
        engine.warm_up()


def test_a_job_for_which_there_is_no_room_ends_as_out_of_memory(desk: Desk, device: Device) -> None:
    device.rows = 0
    desk.runner.engine.headroom.memory = device
    record = desk.run()
    assert record.error
    assert record.error.code == "out_of_memory"


def test_rewards_that_a_job_does_not_name_make_room_for_it(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = desk.runner.engine
    engine.rewards |= {"brightness": Brightness(), "sharpness": Brightness(), "colorfulness": Brightness()}
    engine.headroom.memory = device
    measure = device.peak

    def crowded(call: Callable[[], object]) -> int:
        if "colorfulness" in engine.rewards:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(call)

    monkeypatch.setattr(device, "peak", crowded)
    record = desk.run(held_out=["sharpness"])
    assert record.status is Status.SUCCEEDED, record.error
    assert engine.rewards.keys() == {"brightness", "sharpness"}
    record = desk.run(reward="colorfulness")
    assert record.error
    assert (record.error.code, engine.rewards.keys()) == ("out_of_memory", {"colorfulness"})


def test_a_reward_that_fails_does_not_keep_a_worker_from_starting(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.rewards["scene_match"] = Faulty(RuntimeError("no lungs"))
    with caplog.at_level(logging.WARNING):
        engine.warm_up()
    assert "not warmed up, the first job will find what is wrong: no lungs" in caplog.text


def test_a_broken_device_is_not_taken_for_a_cold_one(engine: Engine) -> None:
    engine.rewards["scene_match"] = Faulty(torch.AcceleratorError("an illegal memory access", 700))
    with pytest.raises(RewardFailedError):
        engine.warm_up()


def test_pictures_of_noise_are_not_sent_to_a_scoring_service(desk: Desk, device: Device) -> None:
    asked: list[str] = []

    class Named(Brightness):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def score(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
            asked.append(self.name)
            return super().score(images, prompt)

    metered = desk.runner.engine.open(desk.record(desk.submit()).request).metered
    parts = {name: Part(Named(name)) for name in ("http", "brightness")}
    for reward in (Composite(parts), Composite({"http": parts["http"]})):
        for call in passes(replace(metered, reward=reward), torch.device("cpu"), guided=False):
            call(2)
    assert asked == ["brightness"]
    assert device.calls == [2, 2]


def test_calls_to_try_a_search_out_are_not_on_its_clock(desk: Desk) -> None:
    search = desk.runner.engine.open(desk.record(desk.submit()).request)
    for call in passes(search.metered, torch.device("cpu"), guided=True):
        call(2)
    assert search.clock.seconds.keys() == {"load"}
