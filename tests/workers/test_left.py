"""A round of many batches is left where an order or a limit of time asks for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from contracts.events import CandidateEvent, Resumed
from contracts.jobs import Record, Status
from models.rewards.brightness import Brightness
from tests.workers.conftest import Desk
from tests.workers.test_checkpoints import outcome, story
from tests.workers.test_extended import extended
from workers.headroom import Headroom
from workers.limits import Limits
from workers.messages import Ending, Order

ROWS = 5
BODY: dict[str, Any] = {
    "search": {"strategy": "smc"},
    "sampler": {"steps": 3},
    "budget": {"nfe": 94},
}
"""Three rounds of 30 evaluations, in six batches each, and a finish of 4."""
FIRST, SECOND = 3, 6 + 3
"""Batches after which something is asked for: in the middle of a round."""


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.runner.engine.headroom = Headroom(most=ROWS)
    return desk


class Counted(Brightness):
    """Brightness that does something as it answers for a batch; the first has number 1."""

    def __init__(self, batch: int, does: Callable[[], object]) -> None:
        super().__init__()
        self.batch, self.does, self.answered = batch, does, 0

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.answered += 1
        if self.answered == self.batch:
            self.does()
        return super().score(images, prompt)


def ordered(desk: Desk, order: Order, batch: int) -> tuple[str, Ending]:
    """A job for which something is ordered while a batch is judged, and how its execution ended."""
    job = desk.submit(**BODY)
    counted = Counted(batch, lambda: desk.runner.orders.add((job, order)))
    desk.runner.engine.rewards["brightness"] = counted
    ending = desk.runner.run(job)
    assert counted.answered == batch
    desk.runner.orders.clear()
    del desk.runner.engine.rewards["brightness"]
    return job, ending


def timed_out(desk: Desk, monkeypatch: pytest.MonkeyPatch, batch: int, **body: object) -> Record:
    """A job that has taken 100 s from a batch on."""
    late: list[bool] = []
    monkeypatch.setattr(Limits, "elapsed", property(lambda _: 100.0 if late else 0.0))
    desk.runner.engine.rewards["brightness"] = Counted(batch, lambda: late.append(True))
    return desk.run(**BODY | body)


def told(desk: Desk, record: Record) -> list[CandidateEvent]:
    return [event for event in desk.events(record.id) if isinstance(event, CandidateEvent)]


def accounted(record: Record, made: int) -> bool:
    """Whether all that was made is spent, everywhere, and nothing twice."""
    usage = record.usage
    assert usage
    assert record.progress.nfe_spent == usage.nfe_spent
    return (usage.nfe_spent, usage.nfe_unspent, usage.nfe_redone) == (made, 94 - made, 0)


def test_a_cancel_leaves_the_round_and_keeps_the_best_of_those_before(desk: Desk) -> None:
    job, _ = ordered(desk, Order.CANCEL, SECOND)
    record = desk.record(job)
    assert record.status is Status.CANCELED
    assert accounted(record, SECOND * ROWS)
    assert [event.nfe for event in told(desk, record)] == [*range(1, 31)]
    assert record.result
    assert record.result.images[0].reward == max(event.reward for event in told(desk, record))


def test_a_cancel_in_the_first_round_leaves_nothing(desk: Desk) -> None:
    job, _ = ordered(desk, Order.CANCEL, FIRST)
    record = desk.record(job)
    assert (record.status, record.error, record.result) == (Status.CANCELED, None, None)
    assert accounted(record, FIRST * ROWS)
    assert told(desk, record) == []


@pytest.mark.parametrize(("batch", "saved"), [(FIRST, 0), (SECOND, 30)])
def test_a_job_given_back_makes_again_what_its_round_had_made(desk: Desk, batch: int, saved: int) -> None:
    whole = desk.run(**BODY)
    job, ending = ordered(desk, Order.GIVE_BACK, batch)
    record = desk.record(job)
    assert (ending, record.status) == (Ending.GIVEN_BACK, Status.QUEUED)
    assert record.progress.nfe_spent == batch * ROWS
    assert (record.checkpoint.nfe if record.checkpoint else 0) == saved
    desk.runner.run(job)
    record = desk.record(job)
    assert outcome(record) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert (resumed.from_nfe, resumed.nfe_redone) == (saved, batch * ROWS - saved)
    assert record.usage
    assert (record.usage.nfe_spent, record.usage.nfe_redone) == (94, batch * ROWS - saved)


def test_a_round_whose_last_batch_runs_is_not_left(desk: Desk) -> None:
    job, _ = ordered(desk, Order.CANCEL, 6)
    record = desk.record(job)
    assert accounted(record, 30)
    assert len(told(desk, record)) == 30
    assert record.result


def test_seconds_leave_the_round_once_there_is_a_picture(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    record = timed_out(desk, monkeypatch, SECOND, budget={"nfe": 94, "seconds": 10})
    assert record.status is Status.SUCCEEDED
    assert record.result
    assert record.result.stopped_by == "seconds"
    assert accounted(record, SECOND * ROWS)
    record = timed_out(desk, monkeypatch, FIRST, budget={"nfe": 94, "seconds": 10})
    assert record.result
    assert accounted(record, 30)


def test_the_servers_deadline_leaves_the_round(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = desk.settings.model_copy(update={"job_timeout_seconds": 90})
    desk = replace(desk, runner=replace(desk.runner, settings=settings))
    record = timed_out(desk, monkeypatch, SECOND)
    assert record.error
    assert (record.error.code, record.result is not None) == ("deadline", True)
    assert accounted(record, SECOND * ROWS)


def test_an_extension_goes_on_from_where_the_round_began(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"search": {"strategy": "rbf", "width": 4}, "sampler": {}}
    begun = timed_out(desk, monkeypatch, 8, budget={"nfe": 94, "seconds": 10}, **wide)
    assert begun.usage
    assert begun.checkpoint
    assert begun.usage.nfe_spent == begun.checkpoint.nfe + ROWS
    monkeypatch.undo()
    del desk.runner.engine.rewards["brightness"]
    job = extended(desk, begun, 100)
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.SUCCEEDED
    assert record.usage
    assert (record.usage.nfe_spent, record.usage.nfe_redone) == (100, 0)
