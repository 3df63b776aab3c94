"""What a search leaves of its budget, and why, as its job says."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from contracts.jobs import Record, Spent, Status, Usage
from contracts.plans import plan_of
from contracts.search import STRATEGY_PARAMS
from models.rewards.brightness import Brightness
from tests.workers.conftest import Deadly, Desk
from tests.workers.test_checkpoints import killed
from tests.workers.test_extended import extended
from workers.messages import Order

STEPS = 4
BODY: dict[str, Any] = {"sampler": {"steps": STEPS}}
BY_ITSELF: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "base": ({}, 9, "base made 1 run of 4 NFE"),
    "best_of_n": ({}, 11, "best_of_n made 2 runs of 4 NFE"),
    "zero_order": ({}, 22, "zero_order had too little left for one more run of 4 NFE"),
    "sop": ({}, 66, "sop had too little left for one more run of 4 NFE"),
    "smc": ({}, 31, None),
    "code": ({}, 31, "code had too little left for one more continuation of 2 NFE"),
    "svdd": ({}, 31, None),
    "rbf": (
        {"mode": "upstream", "initial_noises": 4},
        31,
        "upstream stops when the NFE spent and its 2 chains",
    ),
    "evolution": ({"steps": 2}, 35, "evolution had too little left for one more run of 2 NFE"),
}


def usage_of(record: Record) -> Usage:
    """What a job that has ended spent, which with what it did not spend is its budget."""
    usage = record.usage
    assert usage
    assert usage.nfe_unspent is not None
    assert usage.nfe_spent + usage.nfe_unspent == record.request.budget.nfe
    assert usage.nfe_unspent or usage.unspent_reason is None
    return usage


def left(spent: Spent) -> tuple[int | None, str | None]:
    return spent.nfe_unspent, spent.unspent_reason


def test_every_strategy_is_tried() -> None:
    assert BY_ITSELF.keys() == STRATEGY_PARAMS.keys()


@pytest.mark.parametrize("strategy", BY_ITSELF)
def test_a_search_that_ends_by_itself_says_in_its_own_words_why_it_left_some(
    desk: Desk, strategy: str
) -> None:
    parameters, nfe, reason = BY_ITSELF[strategy]
    record = desk.run(**BODY, search={"strategy": strategy, **parameters}, budget={"nfe": nfe})
    usage, quoted = usage_of(record), plan_of(record.request)
    assert (usage.nfe_spent, usage.nfe_unspent) == (quoted.nfe, quoted.nfe_unspent)
    assert record.result
    if reason is None:
        assert (left(usage), record.result.stopped_by) == ((0, None), "budget")
    else:
        assert usage.nfe_unspent
        assert (usage.unspent_reason or "").startswith(reason)
        assert record.result.stopped_by == "finished"


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"patience": 3}, "the best reward did not grow for 3 NFE"),
        ({"target_reward": 0.125}, "the best reward reached the target of 0.125"),
        ({"seconds": 0.5e-6}, "the 5e-07 s of the budget were over"),
    ],
)
def test_a_search_that_a_limit_ends_names_the_limit(desk: Desk, limit: dict[str, Any], reason: str) -> None:
    usage = usage_of(desk.run(budget={"nfe": 60, **limit}))
    assert usage.nfe_unspent
    assert usage.unspent_reason == reason


class From(Brightness):
    """Brightness that does something at a call, counted from 0, and at those after it."""

    def __init__(self, call: int, does: Callable[[], object]) -> None:
        super().__init__()
        self.calls_before, self.does = call, does

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.calls_before -= 1
        if self.calls_before < 0:
            self.does()
        return super().score(images, prompt)


def canceled_at(desk: Desk, call: int, **body: object) -> Record:
    """A job that is told to end while its reward answers a call."""
    job = desk.submit(**body)
    order = (job, Order.CANCEL)
    desk.runner.engine.rewards["brightness"] = From(call, lambda: desk.runner.orders.add(order))
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.CANCELED
    return record


def fail() -> None:
    raise ValueError("no idea")


def test_a_canceled_job_says_so_of_what_it_left(desk: Desk) -> None:
    record = canceled_at(desk, 1)
    assert record.result
    assert left(usage_of(record)) == (60 - 25 - 2, "the job was canceled")


def test_a_failed_job_says_so_of_what_it_left(desk: Desk) -> None:
    desk.runner.engine.rewards["brightness"] = From(1, fail)
    record = desk.run()
    assert record.status is Status.FAILED
    assert left(usage_of(record)) == (60 - 25, "the job failed")


def test_one_over_the_servers_time_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.limits.Limits.elapsed", property(lambda _: 1e9))
    usage = usage_of(desk.run())
    assert left(usage) == (60 - 25, "the job ran as long as the server allows any")


def test_an_extension_counts_its_own_budget(desk: Desk) -> None:
    begun = desk.run(budget={"nfe": 60, "patience": 3})
    assert begun.checkpoint
    job = extended(desk, begun, 100, target_reward=0.0)
    desk.runner.run(job)
    assert left(usage_of(desk.record(job))) == (100, "the best reward reached the target of 0")
    job = extended(desk, begun, 100)
    desk.runner.run(job)
    assert left(usage_of(desk.record(job))) == (0, None)


@pytest.mark.parametrize("body", [{"search": {"strategy": "base"}}, {"budget": {"nfe": 200, "patience": 30}}])
def test_one_that_is_gone_on_with_says_what_an_undisturbed_one_does(desk: Desk, body: dict[str, Any]) -> None:
    whole = desk.run(**body)
    job = desk.submit(**body)
    killed(desk, job, 0 if "search" in body else 3)
    desk.runner.run(job)
    assert usage_of(whole).nfe_unspent
    assert left(usage_of(desk.record(job))) == left(usage_of(whole))


def test_what_another_execution_told_of_is_not_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = desk.submit(budget={"nfe": 400, "seconds": 50})
    killed(desk, job, 24)
    told = desk.record(job)
    assert told.checkpoint
    assert told.progress.nfe_spent > told.checkpoint.nfe
    monkeypatch.setattr("workers.limits.Limits.elapsed", property(lambda _: 60.0))
    desk.runner.run(job)
    usage = usage_of(desk.record(job))
    assert usage.nfe_spent == told.progress.nfe_spent
    assert usage.unspent_reason == "the 50 s of the budget were over"


def test_a_baseline_counts_its_own_budget(desk: Desk) -> None:
    body = {**BODY, "budget": {"nfe": 200, "patience": 3}, "baseline": True}
    usage = usage_of(desk.run(**body))
    assert usage.baseline
    assert left(usage.baseline) == (0, None)
    assert usage.unspent_reason == "the best reward did not grow for 3 NFE"


def test_a_baseline_that_is_canceled_says_so_and_its_search_does_not(desk: Desk) -> None:
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    assert usage_of(desk.run(**BODY)).nfe_unspent == 0
    record = canceled_at(desk, 1000 - counting.calls_left, **BODY, baseline=True)
    usage = usage_of(record)
    assert usage.baseline
    assert left(usage) == (0, None)
    assert left(usage.baseline) == (60 - usage.baseline.nfe_spent, "the job was canceled")
    assert usage.baseline.nfe_spent == 32


def test_a_baseline_that_fails_says_so_and_its_search_does_not(desk: Desk) -> None:
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    desk.run(**BODY)
    desk.runner.engine.rewards["brightness"] = From(1000 - counting.calls_left + 1, fail)
    record = desk.run(**BODY, baseline=True)
    assert record.status is Status.FAILED
    usage = usage_of(record)
    assert usage.baseline
    assert left(usage) == (0, None)
    assert usage.baseline.unspent_reason == "the job failed"
