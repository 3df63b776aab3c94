"""POST /v1/generations/{id}/extend: what is queued, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from contracts.jobs import Checkpoint, Status, hash_fields
from contracts.keys import OUTBOX_KEY, checkpoint_path, job_key, pace_key
from tests.app.hand import Hand
from tests.app.test_bad_input import UNKNOWN_ID, refused

Submit = Callable[..., Hand]
STATE = b"the last state of a search"


def finished(hand: Hand, spent: int | None = None) -> str:
    """End a job as a worker does that keeps its last state; its URL."""
    hand.start()
    hand.finish()
    nfe = spent or hand.record.request.budget.nfe
    hand.file(checkpoint_path(hand.id, 1, nfe), STATE)
    fields: Any = hash_fields(checkpoint=Checkpoint(attempt=1, nfe=nfe))
    hand.redis.hset(job_key(hand.id), mapping=fields)
    return f"/v1/generations/{hand.id}"


def extend(
    client: httpx.Client, job: str, nfe: int = 100, headers: dict[str, str] | None = None
) -> httpx.Response:
    return client.post(f"{job}/extend", json={"budget": {"nfe": nfe}}, headers=headers)


def test_a_job_that_ended_goes_on_as_a_new_one(
    submit: Submit, client: httpx.Client, redis: Redis, data_dir: Path
) -> None:
    hand = submit(budget={"nfe": 150, "patience": 9}, seed=7, metadata={"a": "b"}, baseline=True)
    job = finished(hand)
    parent = client.get(job).json()
    answer = extend(client, parent["urls"]["get"])
    assert answer.status_code == 202, answer.text
    child = answer.json()
    assert answer.headers["location"] == child["urls"]["get"] == f"/v1/generations/{child['id']}"
    assert child["parent"] == {"id": hand.id, "nfe": 150}
    assert parent["parent"] is None
    assert child["request"]["search"].pop("plan_nfe") == 150
    assert parent["request"]["search"].pop("plan_nfe") is None
    budget = {"nfe": 100, "seconds": None, "target_reward": None, "patience": None}
    assert child["request"] == {**parent["request"], "budget": budget, "baseline": False}
    assert (child["status"], child["progress"]["nfe_spent"], child["progress"]["nfe_budget"]) == (
        "queued",
        0,
        100,
    )
    copy = data_dir / "artifacts" / checkpoint_path(child["id"], 0, 150)
    assert copy.read_bytes() == STATE
    assert client.delete(job).status_code == 204
    assert copy.read_bytes() == STATE
    assert client.get(answer.headers["location"]).json()["progress"]["queue_position"] is not None
    record = Hand(redis, data_dir / "artifacts", child["id"]).record
    assert record.checkpoint == Checkpoint(attempt=0, nfe=150)


def test_the_plan_of_an_extension_is_that_of_the_first_search(
    submit: Submit, client: httpx.Client, redis: Redis, data_dir: Path
) -> None:
    job = finished(submit(budget={"nfe": 150}))
    child = Hand(redis, data_dir / "artifacts", extend(client, job).json()["id"])
    grandchild = extend(client, finished(child, spent=250), 50).json()
    assert grandchild["parent"] == {"id": child.id, "nfe": 250}
    assert grandchild["request"]["search"]["plan_nfe"] == 150


def test_time_alone_is_laid_out_at_the_pace(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    job = finished(submit(budget={"nfe": 150}))
    redis.hset(pace_key("shapes"), mapping={"jobs": 1, "nfe": 200, "seconds": 10.0})
    answer = client.post(f"{job}/extend", json={"budget": {"seconds": 20}})
    assert answer.status_code == 202, answer.text
    budget = answer.json()["request"]["budget"]
    assert budget == {"nfe": 360, "seconds": 20, "target_reward": None, "patience": None}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.FAILED, Status.CANCELED])
def test_only_success_can_be_extended(submit: Submit, client: httpx.Client, status: Status) -> None:
    hand = submit()
    if status is not Status.QUEUED:
        hand.start()
    if status.final:
        hand.finish(status)
    problem = refused(extend(client, f"/v1/generations/{hand.id}"), 409, "wrong_state")
    assert problem["generation_status"] == status


def test_an_unknown_job_cannot(client: httpx.Client) -> None:
    refused(extend(client, f"/v1/generations/{UNKNOWN_ID}"), 404, "generation_not_found")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"search": {"strategy": "base"}}, "'base' lays its whole budget out beforehand"),
        ({"search": {"strategy": "svdd"}}, "'svdd' lays its whole budget out beforehand"),
        ({"search": {"strategy": "zero_order", "finish_steps": 2}}, "without finish steps"),
        ({"search": {"strategy": "zero_order", "neighbours": 3}}, "whole generations of 3 runs"),
    ],
)
def test_a_search_with_no_use_for_more_cannot(
    submit: Submit, client: httpx.Client, body: dict[str, Any], detail: str
) -> None:
    problem = refused(extend(client, finished(submit(**body))), 409, "not_extendable")
    assert detail in problem["detail"]


def test_a_state_that_is_gone_is_said_to_be(submit: Submit, client: httpx.Client, data_dir: Path) -> None:
    hand = submit()
    job = finished(hand)
    (data_dir / "artifacts" / checkpoint_path(hand.id, 1, 200)).unlink()
    assert "not kept any more" in refused(extend(client, job), 409, "not_extendable")["detail"]
    older = submit()
    older.start()
    older.finish()
    assert (
        "not kept" in refused(extend(client, f"/v1/generations/{older.id}"), 409, "not_extendable")["detail"]
    )


@pytest.mark.parametrize(
    ("search", "spent", "least"),
    [
        ({"strategy": "rbf"}, 200, 5),
        ({"strategy": "rbf", "finish_steps": 0}, 200, 1),
        ({"strategy": "rbf"}, 120, 80),
        ({"strategy": "rbf", "mode": "upstream"}, 198, 3),
        ({"strategy": "best_of_n"}, 200, 10),
        ({"strategy": "best_of_n", "steps": 60}, 180, 60),
        ({"strategy": "zero_order"}, 200, 10),
    ],
)
def test_a_budget_that_pays_for_nothing_is_refused_with_the_least(
    submit: Submit, client: httpx.Client, search: dict[str, Any], spent: int, least: int
) -> None:
    job = finished(submit(search=search), spent)
    if least > 1:
        [problem] = refused(extend(client, job, least - 1), 422, "invalid_request")["errors"]
        assert (problem["pointer"], f"at least {least} " in problem["detail"]) == ("/budget/nfe", True)
    assert extend(client, job, least).status_code == 202


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/budget"),
        ({"budget": {"nfe": 5001}}, "/budget/nfe"),
        ({"budget": {"nfe": "200"}}, "/budget/nfe"),
        ({"budget": {"nfe": 200, "patients": 3}}, "/budget/patients"),
        ({"budget": {"nfe": 200}, "seed": 3}, "/seed"),
    ],
)
def test_bad_bodies(submit: Submit, client: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    answer = client.post(f"{finished(submit())}/extend", json=body)
    [problem] = refused(answer, 422, "invalid_request")["errors"]
    assert problem["pointer"] == pointer
    if pointer == "/seed":
        assert problem["allowed"] == ["budget"]


def test_an_idempotency_key_makes_one_job_and_leaves_no_copy(
    submit: Submit, client: httpx.Client, data_dir: Path
) -> None:
    job, other = finished(submit()), finished(submit())
    before = set((data_dir / "artifacts").iterdir())
    headers = {"Idempotency-Key": "again"}
    first, again = (extend(client, job, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    refused(extend(client, other, headers=headers), 422, "idempotency_mismatch")
    refused(extend(client, job, 101, headers), 422, "idempotency_mismatch")
    assert {path.name for path in set((data_dir / "artifacts").iterdir()) - before} == {first.json()["id"]}


@pytest.mark.usefixtures("same_day")
def test_keys_extend_their_own_jobs_and_pay(client: httpx.Client, redis: Redis, data_dir: Path) -> None:
    secrets: list[dict[str, str]] = []
    for limits in (Limits(nfe_per_day=350), Limits()):
        key, secret = new_key("test", limits)
        Keyring(redis).add(key)
        secrets.append({"Authorization": f"Bearer {secret}"})
    mine, other = secrets
    answer = client.post("/v1/generations", json={"prompt": "x"}, headers=mine)
    job = finished(Hand(redis, data_dir / "artifacts", answer.json()["id"]))
    refused(extend(client, job, headers=other), 404, "generation_not_found")
    first = extend(client, job, 100, mine)
    assert first.headers["ratelimit"].split(";")[1] == "r=50"
    refused(extend(client, job, 351, mine), 422, "invalid_request")
    answer = extend(client, job, 300, mine)
    assert "NFE a day" in refused(answer, 429, "nfe_exhausted")["detail"]
    assert extend(client, job, 50, mine).status_code == 202


def test_a_model_that_is_served_no_more(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    hand = submit()
    job = finished(hand)
    stored: Any = redis.hget(job_key(hand.id), "request")
    redis.hset(job_key(hand.id), "request", stored.replace('"model":"shapes"', '"model":"gone"'))
    assert "'gone'" in refused(extend(client, job), 409, "not_extendable")["detail"]


def test_a_request_repeated_finds_its_job_though_the_parent_is_gone(
    submit: Submit, client: httpx.Client
) -> None:
    job, once = finished(submit()), {"Idempotency-Key": "once"}
    first = extend(client, job, headers=once)
    assert client.delete(job).status_code == 204
    again = extend(client, job, headers=once)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"


def test_a_copy_that_fails_half_way_leaves_nothing(
    submit: Submit, client: httpx.Client, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content[:5])
        raise OSError(28, "No space left on device")

    job, store = finished(submit()), data_dir / "artifacts"
    before = sorted(path.name for path in store.iterdir())
    monkeypatch.setattr("app.artifacts.replace_file", half)
    refused(extend(client, job), 503, "storage_unavailable")
    assert sorted(path.name for path in store.iterdir()) == before


def test_a_child_tells_its_parents_receiver(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    webhook = {"url": "https://example.com/hook", "events": ["completed"]}
    child = extend(client, finished(submit(webhook=webhook, metadata={"a": "b"}))).json()
    assert (child["request"]["webhook"], child["request"]["priority"]) == (webhook, "normal")
    before = redis.zcard(OUTBOX_KEY)
    hand = Hand(redis, Path(), child["id"])
    hand.start()
    hand.write(allowed=Status.RUNNING, status=Status.SUCCEEDED)
    assert redis.zcard(OUTBOX_KEY) == before + 1
