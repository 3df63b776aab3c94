"""A job that goes on from the end of another: one long search, in two jobs."""

from typing import Any

import pytest
from redis import Redis

from app.enqueue import Enqueuer
from contracts.events import CandidateEvent, Resumed
from contracts.extension import extension_of, parse_extension
from contracts.jobs import Record, Result, Status, Usage
from contracts.keys import checkpoint_path, checkpoints_path
from contracts.requests import Caps
from tests.workers.conftest import Deadly, Desk
from tests.workers.test_checkpoints import files, killed, outcome, story
from workers.messages import Order

SAMPLER = {"sampler": {"steps": 4}, "held_out": ["sharpness"]}
LONG: list[tuple[dict[str, Any], int, int, dict[str, Any]]] = [
    # two whole batches of 8 runs of 4 steps, and one more
    ({"search": {"strategy": "best_of_n"}}, 64, 32, {}),
    ({"search": {"strategy": "zero_order", "neighbours": 3}}, 48, 28, {}),
    ({"search": {"strategy": "rbf", "initial_noises": 6, "finish_steps": 0}}, 30, 20, {"plan_nfe": 30}),
    (
        {
            "search": {"strategy": "rbf", "mode": "upstream", "initial_noises": 4, "chains": 1},
            "num_images": 1,
        },
        30,
        20,
        {"plan_nfe": 30},
    ),
]


def copied(desk: Desk, parent: Record, request: dict[str, Any]) -> Record:
    """What the API makes of a request to extend."""
    assert parent.checkpoint
    resolved = extension_of(parent, parse_extension(request), Caps())
    record = Record.new(resolved).extending(parent)
    source = checkpoint_path(parent.id, parent.checkpoint.attempt, parent.checkpoint.nfe)
    target = checkpoint_path(record.id, 0, parent.checkpoint.nfe)
    desk.runner.store.put(target, desk.runner.store.get(source))
    return record


def extended(desk: Desk, parent: Record, nfe: int, **budget: object) -> str:
    """Submit an extension as the API does."""
    record = copied(desk, parent, {"budget": {"nfe": nfe, **budget}})
    with Redis.from_url(desk.settings.redis_url or "") as raw:
        return Enqueuer(raw, desk.settings).submit(record, "").id


def ran(desk: Desk, job: str) -> tuple[Record, Result, Usage]:
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.SUCCEEDED, record.error
    assert record.result
    assert record.usage
    return record, record.result, record.usage


def candidates(desk: Desk, job: str) -> list[dict[str, Any]]:
    """What the stream tells of candidates, quotas aside: they are of a job's own budget."""
    return [
        {key: value for key, value in step.items() if key not in {"quota", "carried"}}
        for step in story(desk, job)
        if step["type"] == "candidate"
    ]


@pytest.mark.parametrize(("body", "first", "more", "plan"), LONG, ids=str)
def test_it_ends_as_one_long_search_with_the_same_plan(
    desk: Desk, body: dict[str, Any], first: int, more: int, plan: dict[str, Any]
) -> None:
    body = {**SAMPLER, **body}
    whole = desk.run(**{**body, "search": body["search"] | plan, "budget": {"nfe": first + more}})
    begun = desk.run(**body, budget={"nfe": first})
    assert begun.checkpoint
    spent = begun.checkpoint.nfe
    record, result, usage = ran(desk, extended(desk, begun, first + more - spent))
    assert whole.result
    assert [image.sha256 for image in result.images] == [image.sha256 for image in whole.result.images]
    assert [(i.reward, i.nfe, i.held_out) for i in result.images] == [
        (i.reward, i.nfe, i.held_out) for i in whole.result.images
    ]
    assert candidates(desk, begun.id) + candidates(desk, record.id) == candidates(desk, whole.id)
    assert whole.usage
    assert spent + usage.nfe_spent == whole.usage.nfe_spent
    assert usage.reward_calls == sum(step["nfe"] > spent for step in candidates(desk, whole.id))
    assert result.first_reward == whole.result.first_reward


def test_what_it_tells_of_itself(desk: Desk) -> None:
    begun = desk.run()
    record, result, usage = ran(desk, extended(desk, begun, 40))
    assert record.parent
    assert (record.parent.id, record.parent.nfe) == (begun.id, 60)
    assert (usage.nfe_spent, usage.reward_calls, usage.decodes, usage.nfe_redone) == (40, 40, 40, 0)
    assert (record.progress.nfe_spent, record.progress.nfe_budget) == (40, 40)
    events = desk.events(record.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events[:2]] == ["queued", "started"]
    told = [event for event in events if isinstance(event, CandidateEvent)]
    assert [event.nfe for event in told] == list(range(61, 101))
    assert begun.result
    assert result.images[0].reward == max(begun.result.images[0].reward, *(event.reward for event in told))
    assert result.levels[: len(begun.result.levels)] == begun.result.levels
    assert usage.seconds.total < 30
    assert files(desk, record.id) == ["1-100.safetensors"]


def test_it_can_be_extended_again(desk: Desk) -> None:
    body = {**SAMPLER, "search": {"strategy": "rbf", "initial_noises": 6, "finish_steps": 0}}
    whole = desk.run(**body | {"search": body["search"] | {"plan_nfe": 30}}, budget={"nfe": 60})
    last = desk.run(**body, budget={"nfe": 30})
    jobs = [last.id]
    for _ in range(3):
        last, _, _ = ran(desk, extended(desk, last, 10))
        jobs.append(last.id)
    assert last.parent
    assert last.parent.nfe == 50
    assert [step for job in jobs for step in candidates(desk, job)] == candidates(desk, whole.id)
    assert last.result
    assert whole.result
    assert last.result.images[0].sha256 == whole.result.images[0].sha256


def test_a_search_that_was_ended_early_goes_on(desk: Desk) -> None:
    whole = desk.run(search={"strategy": "rbf", "plan_nfe": 60}, budget={"nfe": 100})
    begun = desk.run(budget={"nfe": 60, "patience": 3})
    assert begun.checkpoint
    spent = begun.checkpoint.nfe
    assert spent < 56
    record, result, usage = ran(desk, extended(desk, begun, 100 - spent))
    assert usage.nfe_spent == 100 - spent
    assert result.stopped_by == "budget"
    told = candidates(desk, begun.id) + candidates(desk, record.id)
    assert told == candidates(desk, whole.id)
    assert whole.result
    assert result.images[0].sha256 == whole.result.images[0].sha256


def test_its_limits_are_its_own(desk: Desk) -> None:
    begun = desk.run(budget={"nfe": 60, "patience": 3})
    assert begun.checkpoint
    _, result, usage = ran(desk, extended(desk, begun, 100, patience=20))
    assert result.stopped_by == "patience"
    assert usage.nfe_spent >= 20
    _, result, usage = ran(desk, extended(desk, begun, 100, target_reward=0.0))
    assert (result.stopped_by, usage.nfe_spent) == ("target_reward", 0)
    assert begun.result
    assert result.images[0].sha256 == begun.result.images[0].sha256


@pytest.mark.parametrize("at_call", [0, 5, 30])
def test_one_whose_execution_vanishes_ends_as_if_nothing_had_been(desk: Desk, at_call: int) -> None:
    begun = desk.run()
    whole, _, _ = ran(desk, extended(desk, begun, 80))
    job = extended(desk, begun, 80)
    killed(desk, job, at_call)
    published = desk.record(job).progress.nfe_spent
    record, _, usage = ran(desk, job)
    assert outcome(record) == outcome(whole)
    assert story(desk, job) == story(desk, whole.id)
    [resumed] = [event for event in desk.events(job) if isinstance(event, Resumed)]
    assert resumed.from_nfe + resumed.nfe_redone == published
    assert usage.nfe_redone == resumed.nfe_redone
    assert files(desk, job) == ["2-140.safetensors"]


def test_it_needs_nothing_of_its_parent(desk: Desk) -> None:
    begun = desk.run()
    whole, _, _ = ran(desk, extended(desk, begun, 40))
    job = extended(desk, begun, 40)
    desk.runner.store.sweep(begun.id)
    record, _, _ = ran(desk, job)
    assert outcome(record) == outcome(whole)


def test_a_state_of_its_own_that_cannot_be_read_costs_its_work_and_no_more(desk: Desk) -> None:
    begun = desk.run()
    whole, _, _ = ran(desk, extended(desk, begun, 80))
    job = extended(desk, begun, 80)
    killed(desk, job, 30)
    own = [name for name in files(desk, job) if not name.startswith("0-")]
    assert own
    for name in own:
        (desk.file(checkpoints_path(job)) / name).write_bytes(b"")
    record, _, _ = ran(desk, job)
    assert outcome(record) == outcome(whole)


def test_without_any_state_it_fails_and_does_not_search_anew(desk: Desk) -> None:
    job = extended(desk, desk.run(), 40)
    desk.runner.store.sweep(job)
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    desk.runner.run(job)
    record = desk.record(job)
    assert record.error
    assert (record.error.code, counting.calls_left) == ("storage_failed", 1000)


def test_a_cancel_before_its_first_round_keeps_what_its_parent_found(desk: Desk) -> None:
    begun = desk.run()
    job = extended(desk, begun, 40)
    desk.runner.orders.add((job, Order.CANCEL))
    desk.runner.run(job)
    record = desk.record(job)
    assert record.status is Status.CANCELED
    assert record.result
    assert begun.result
    assert record.result.images[0].sha256 == begun.result.images[0].sha256
    assert record.usage
    assert record.usage.nfe_spent == 0
    assert files(desk, job) == []


def test_of_a_job_with_a_baseline_the_search_goes_on(desk: Desk) -> None:
    plain, compared = desk.run(**SAMPLER), desk.run(**SAMPLER, baseline=True)
    after, _, _ = ran(desk, extended(desk, plain, 40))
    record, result, _ = ran(desk, extended(desk, compared, 40))
    assert outcome(record) == outcome(after)
    assert result.baseline is None
