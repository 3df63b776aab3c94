"""A job with a baseline: best-of-n at the same NFE, run after the search and accounted apart from it."""

import json
from typing import Any

import pytest
from torch import Tensor

from contracts.events import Resumed
from contracts.jobs import Baseline, Checkpoint, Record, Result, Spent, Status, Usage, hash_fields
from contracts.keys import baseline_path, checkpoints_path, trace_path
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from models.rewards.brightness import Brightness
from tests.workers.conftest import Deadly, Desk, Faulty
from tests.workers.test_checkpoints import files, killed, outcome, story
from workers.checkpoints import EVERY_NFE, Checkpoints, Standing
from workers.messages import Ending, Order

STEPS = 4
BODY: dict[str, Any] = {"sampler": {"steps": STEPS}, "held_out": ["sharpness"]}


def compared(record: Record) -> tuple[Result, Baseline, Usage, Spent]:
    assert record.result
    assert record.result.baseline
    assert record.usage
    assert record.usage.baseline
    return record.result, record.result.baseline, record.usage, record.usage.baseline


def calls_of_the_search(desk: Desk) -> int:
    """How often the search alone asks the reward."""
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    desk.run(**BODY)
    return 1000 - counting.calls_left


def test_it_is_best_of_n_at_the_same_nfe(desk: Desk) -> None:
    search = desk.run(**BODY)
    plain = desk.run(**BODY, search={"strategy": "best_of_n"})
    record = desk.run(**BODY, baseline=True)
    assert outcome(record) == outcome(search)
    _, baseline, usage, spent = compared(record)
    assert plain.result
    best = plain.result.images[0]
    image = baseline.image
    assert (image.sha256, image.reward, image.held_out) == (best.sha256, best.reward, best.held_out)
    assert (image.chain, image.nfe, image.seed) == (best.chain, best.nfe, best.seed)
    assert image.url == f"/v1/generations/{record.id}/baseline"
    assert desk.file(baseline_path(record.id, "png")).exists()
    assert (baseline.nfe_spent, baseline.steps, baseline.stopped_by) == (60, STEPS, "budget")
    assert (usage.nfe_spent, spent.nfe_spent, spent.reward_calls) == (60, 60, 60 // STEPS)
    assert 0 < spent.seconds.model + spent.seconds.decode + spent.seconds.reward <= spent.seconds.total


def test_a_search_of_runs_goes_the_way_that_is_named_and_its_baseline_the_models_own(desk: Desk) -> None:
    named = {"interpolant": "vp", "kernel": "euler_maruyama", "grid": "quadratic"}
    plain = desk.run(**BODY, search={"strategy": "best_of_n"})
    other = BODY | {"sampler": BODY["sampler"] | named}
    record = desk.run(**other, search={"strategy": "best_of_n"}, baseline=True)
    result, baseline, *_ = compared(record)
    assert plain.result
    assert baseline.image.sha256 == plain.result.images[0].sha256 != result.images[0].sha256


def test_a_guided_search_is_compared_with_an_unguided_one(desk: Desk) -> None:
    guided = BODY | {"sampler": BODY["sampler"] | {"reward_guidance": 30.0}}
    plain = desk.run(**BODY, search={"strategy": "best_of_n"})
    record = desk.run(**guided, search={"strategy": "best_of_n"}, baseline=True)
    result, baseline, usage, spent = compared(record)
    assert plain.result
    assert baseline.image.sha256 == plain.result.images[0].sha256 != result.images[0].sha256
    assert usage.gradients > spent.gradients == 0


def test_the_stream_and_the_trace_are_the_searchs(desk: Desk) -> None:
    search, record = desk.run(**BODY), desk.run(**BODY, baseline=True)
    assert story(desk, record.id) == story(desk, search.id)
    types = [event.type for event in desk.events(record.id)]
    assert types[-2:] == ["baseline", "completed"]
    assert types.count("baseline") == 1
    trace = desk.file(trace_path(record.id)).read_text().splitlines()
    assert [json.loads(line)["nfe"] for line in trace] == list(range(1, 61))


@pytest.mark.parametrize("patience", [3, 30])
def test_a_search_that_ends_early_is_compared_at_what_it_spent(desk: Desk, patience: int) -> None:
    record = desk.run(**BODY, budget={"nfe": 200, "patience": patience}, baseline=True)
    result, baseline, usage, spent = compared(record)
    assert result.stopped_by == "patience"
    assert usage.nfe_spent < 200
    assert baseline.nfe_spent == spent.nfe_spent == usage.nfe_spent // STEPS * STEPS


def test_one_run_is_made_in_any_case(desk: Desk) -> None:
    body = {"sampler": {"steps": 10}, "search": {"strategy": "rbf", "initial_noises": 3, "chains": 1}}
    record = desk.run(**body, budget={"nfe": 16, "target_reward": 0.0}, baseline=True)
    _, baseline, usage, _ = compared(record)
    assert (usage.nfe_spent, baseline.nfe_spent) == (3, 10)


def test_of_the_search_the_last_state_is_kept_and_no_other(desk: Desk) -> None:
    record = desk.run(**BODY, baseline=True)
    assert files(desk, record.id) == ["1-60.safetensors"]
    assert record.checkpoint
    assert record.checkpoint.nfe == 60


@pytest.mark.parametrize("after", [0, 1])
def test_a_crash_in_it_does_not_search_again(desk: Desk, after: int) -> None:
    """Runs are made eight at a time, and each batch asks the reward once."""
    whole = desk.run(**BODY, baseline=True)
    searching = calls_of_the_search(desk)
    job = desk.submit(**BODY, baseline=True)
    killed(desk, job, searching + after)
    before = desk.record(job)
    assert before.checkpoint
    assert before.checkpoint.nfe > 60 - EVERY_NFE
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    desk.runner.run(job)
    record = desk.record(job)
    assert 1000 - counting.calls_left == 2 - after
    assert outcome(record) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    _, baseline, usage, spent = compared(record)
    assert baseline == replace_url(compared(whole)[1], job)
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert (resumed.from_nfe, resumed.nfe_redone, usage.nfe_redone) == (60, 0, 0)
    assert resumed.baseline_nfe_redone == spent.nfe_redone <= EVERY_NFE + 8
    assert [event.type for event in desk.events(job)].count("baseline") == 1
    assert files(desk, job) == ["2-60.safetensors"]


def replace_url(baseline: Baseline, job: str) -> Baseline:
    """The same of another job."""
    image = baseline.image.model_copy(update={"url": f"/v1/generations/{job}/baseline"})
    return baseline.model_copy(update={"image": image})


def test_a_state_that_cannot_be_read_costs_the_work_and_tells_nothing_twice(desk: Desk) -> None:
    whole = desk.run(**BODY, baseline=True)
    job = desk.submit(**BODY, baseline=True)
    killed(desk, job, calls_of_the_search(desk) + 1)
    [name] = files(desk, job)
    (desk.file(checkpoints_path(job)) / name).write_bytes(b"")
    desk.runner.run(job)
    record = desk.record(job)
    assert outcome(record) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    assert [event.type for event in desk.events(job)].count("baseline") == 1
    assert record.usage
    assert record.usage.nfe_redone == 60


def test_one_that_kills_every_engine_is_counted(desk: Desk) -> None:
    job = desk.submit(**BODY, baseline=True)
    killed(desk, job, calls_of_the_search(desk))
    for times in (2, 3):
        killed(desk, job, 0)
        assert desk.record(job).losses == times


class Ordered(Brightness):
    """Brightness that has something ordered at a call."""

    def __init__(self, desk: Desk, job: str, at_call: int, order: Order) -> None:
        super().__init__()
        self.desk, self.job, self.calls_left, self.order = desk, job, at_call, order

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.calls_left -= 1
        if self.calls_left < 0:
            self.desk.runner.orders.add((self.job, self.order))
        return super().score(images, prompt)


def test_a_cancel_in_it_keeps_what_both_have_found(desk: Desk) -> None:
    search = desk.run(**BODY)
    searching = calls_of_the_search(desk)
    job = desk.submit(**BODY, baseline=True)
    desk.runner.engine.rewards["brightness"] = Ordered(desk, job, searching, Order.CANCEL)
    desk.runner.run(job)
    record = desk.record(job)
    result, baseline, usage, spent = compared(record)
    assert record.status is Status.CANCELED
    assert search.result
    assert result.images[0].sha256 == search.result.images[0].sha256
    assert (baseline.stopped_by, result.stopped_by) == ("canceled", "budget")
    assert (usage.nfe_spent, spent.nfe_spent, baseline.nfe_spent) == (60, 32, 32)
    assert files(desk, job) == []


def test_a_canceled_search_has_none(desk: Desk) -> None:
    job = desk.submit(**BODY, baseline=True)
    desk.runner.engine.rewards["brightness"] = Ordered(desk, job, 2, Order.CANCEL)
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.CANCELED
    assert record.result
    assert record.result.baseline is None
    assert "baseline" not in [event.type for event in desk.events(job)]


def test_a_cancel_of_one_that_vanished_keeps_what_both_have_found(desk: Desk) -> None:
    job = desk.submit(**BODY, baseline=True)
    killed(desk, job, calls_of_the_search(desk) + 1)
    args = write_args(allowed=[Status.RUNNING], fields=hash_fields(cancel_requested=True))
    desk.redis.eval(WRITE_SCRIPT, 2, *write_keys(job), *args)
    desk.runner.engine.rewards["brightness"] = Faulty(RuntimeError("nothing more is scored"))
    desk.runner.run(job)
    record = desk.record(job)
    _, baseline, _, spent = compared(record)
    assert (record.status, record.error) == (Status.CANCELED, None)
    assert baseline.nfe_spent == spent.nfe_spent == 32


def test_one_over_the_servers_time_fails_with_what_both_have_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.submit(**BODY, baseline=True)
    killed(desk, job, calls_of_the_search(desk) + 1)
    monkeypatch.setattr("workers.limits.Limits.elapsed", property(lambda _: 1e9))
    desk.runner.run(job)
    record = desk.record(job)
    result, baseline, _, _ = compared(record)
    assert record.error
    assert (record.error.code, baseline.stopped_by, result.stopped_by) == ("deadline", "deadline", "budget")


def test_a_fault_in_it_fails_the_job_and_not_the_search(desk: Desk) -> None:
    search = desk.run(**BODY)
    searching = calls_of_the_search(desk)

    class Late(Brightness):
        calls = 0

        def score(self, images: Tensor, prompt: str) -> Tensor:
            Late.calls += 1
            scores = super().score(images, prompt)
            return scores if Late.calls <= searching else scores * float("nan")

    desk.runner.engine.rewards["brightness"] = Late()
    record = desk.run(**BODY, baseline=True)
    assert record.error
    assert record.error.code == "reward_failed"
    assert search.result
    assert record.result
    assert record.result.images[0].sha256 == search.result.images[0].sha256
    assert record.result.baseline is None
    assert record.usage
    assert record.usage.baseline
    assert record.usage.baseline.nfe_spent == 24


def test_one_given_back_goes_on_where_it_was(desk: Desk) -> None:
    whole = desk.run(**BODY, baseline=True)
    job = desk.submit(**BODY, baseline=True)
    searching = calls_of_the_search(desk)
    desk.runner.engine.rewards["brightness"] = Ordered(desk, job, searching, Order.GIVE_BACK)
    assert desk.runner.run(job) is Ending.GIVEN_BACK
    assert desk.record(job).progress.baseline_nfe_spent == 32
    desk.runner.orders.clear()
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    assert desk.runner.run(job) is Ending.DONE
    assert counting.calls_left == 999
    record = desk.record(job)
    assert outcome(record) == outcome(whole)
    assert compared(record)[1] == replace_url(compared(whole)[1], job)
    assert compared(record)[3].nfe_redone == 0


def test_no_state_but_the_searchs_last_is_left_to_extensions(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.run(**BODY, baseline=True).checkpoint
    write = Checkpoints.write
    ended: list[str | None] = []

    # How many states are written depends on the store's pace; the last is of a search that has not ended.
    def refusing(self: Checkpoints, standing: Standing) -> Checkpoint | None:
        last = standing.ended is None and any(ended)
        ended.append(standing.ended)
        return None if last else write(self, standing)

    monkeypatch.setattr(Checkpoints, "write", refusing)
    record = desk.run(**BODY, baseline=True)
    assert record.status is Status.SUCCEEDED
    assert any(ended[:-1])
    assert ended[-1] is None
    assert files(desk, record.id) == []
