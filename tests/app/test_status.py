"""Reading, listing, canceling and deleting generations."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from contracts.jobs import Status, new_id
from tests.app.hand import Hand
from tests.app.test_quotes import ROUNDING

Submit = Callable[..., Hand]


def read(client: httpx.Client, hand: Hand) -> dict:
    return client.get(f"/v1/generations/{hand.id}").json()


def test_a_job_from_the_queue_to_its_result(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.search(1, 50)
    before, running, after = hand.age, read(client, hand), hand.age
    assert running["status"] == "running"
    assert running["attempts"] == 1
    progress = running["progress"]
    assert (progress["nfe_spent"], progress["fraction"], progress["best_reward"]) == (50, 0.25, 0.5)
    assert progress["queue_position"] is None
    assert 3 * before - ROUNDING <= progress["eta_seconds"] <= 3 * after + ROUNDING
    hand.finish()
    ended = read(client, hand)
    assert ended["status"] == "succeeded"
    assert ended["progress"]["fraction"] == 1
    assert ended["progress"]["eta_seconds"] is None
    assert ended["result"]["images"][0]["url"] == f"/v1/generations/{hand.id}/images/0"
    assert ended["usage"]["nfe_spent"] == 1
    assert ended["completed_at"] > ended["started_at"]
    assert ended["status_sequence"] > running["status_sequence"]


def test_a_document_has_a_tag_and_is_not_sent_twice(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    url = f"/v1/generations/{hand.id}"
    first = client.get(url)
    assert first.headers["retry-after"] == "1"
    same = client.get(url, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    hand.start()
    changed = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    hand.finish()
    assert "retry-after" not in client.get(url).headers


def test_lists_are_newest_first_and_pages_join_without_gap(submit: Submit, client: httpx.Client) -> None:
    ids = [submit().id for _ in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/generations", params={"limit": 3, **cursor}).json()
        seen += [job["id"] for job in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sorted(ids, reverse=True)


def test_a_waiting_job_is_read_with_its_place_in_one_round_trip(
    submit: Submit, client: httpx.Client, redis: Redis
) -> None:
    submit()
    url = f"/v1/generations/{submit().id}"
    redis.config_resetstat()
    assert client.get(url).json()["progress"]["queue_position"] == 1
    sent: Any = redis.info("commandstats")
    assert sent["cmdstat_eval"]["calls"] == 1
    assert "cmdstat_multi" not in sent


@pytest.mark.parametrize("broken", ["", "{", "{}", '"broken"', "null"])
def test_a_request_that_cannot_be_read_hides_no_other_job(
    submit: Submit, client: httpx.Client, redis: Redis, broken: str
) -> None:
    bad, good = submit(), submit()
    redis.hset(f"rollover:job:{bad.id}", "request", broken)
    assert [job["id"] for job in client.get("/v1/generations").json()["data"]] == [good.id]


def test_a_page_is_not_disturbed_by_new_jobs(submit: Submit, client: httpx.Client) -> None:
    old = sorted((submit().id for _ in range(4)), reverse=True)
    first = client.get("/v1/generations?limit=2").json()
    submit()
    second = client.get("/v1/generations", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["data"] + second["data"]] == old
    assert second["next_cursor"] is None


def test_lists_filter_by_status(submit: Submit, client: httpx.Client) -> None:
    hands = [submit() for _ in range(5)]
    hands[1].start()
    hands[3].start()
    hands[3].finish()
    wanted = {"running": [hands[1]], "succeeded": [hands[3]], "queued": [hands[0], hands[2], hands[4]]}
    for status, matching in wanted.items():
        page = client.get("/v1/generations", params={"status": status}).json()
        assert {job["id"] for job in page["data"]} == {hand.id for hand in matching}
    assert client.get("/v1/generations?status=failed").json() == {
        "object": "list",
        "data": [],
        "next_cursor": None,
    }


def test_a_rare_status_is_found_over_several_pages(
    submit: Submit, client: httpx.Client, redis: Redis
) -> None:
    rare = submit()
    rare.start()
    rare.finish()
    with redis.pipeline() as pipeline:
        for _ in range(1500):
            newer = new_id()
            pipeline.hset(f"rollover:job:{newer}", "status", "queued")
            pipeline.zadd("rollover:jobs", {newer: 0})
        pipeline.execute()
    first = client.get("/v1/generations?status=succeeded").json()
    assert first["data"] == []
    second = client.get(
        "/v1/generations", params={"status": "succeeded", "cursor": first["next_cursor"]}
    ).json()
    assert [job["id"] for job in second["data"]] == [rare.id]
    assert second["next_cursor"] is None


def test_a_defect_shows_no_stack_trace(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    hand = submit()
    redis.hset(f"rollover:job:{hand.id}", "progress", "broken")
    response = client.get(f"/v1/generations/{hand.id}")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["content-type"] == "application/problem+json"
    assert "broken" not in response.text


def test_cancel_a_queued_job(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    hand, other = submit(), submit()
    response = client.post(f"/v1/generations/{hand.id}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "canceled")
    assert response.json()["completed_at"]
    assert redis.lrange("rq:queue:rollover:shapes", 0, -1) == [other.id]
    assert not hand.write(allowed=Status.QUEUED, status=Status.RUNNING)
    again = client.post(f"/v1/generations/{hand.id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "wrong_state")
    assert again.json()["generation_status"] == "canceled"
    entries: Any = redis.xrange(f"rollover:job:{hand.id}:events")
    assert [json.loads(fields["event"])["type"] for _, fields in entries] == ["queued", "canceled"]


def test_cancel_again_where_the_first_was_cut_off(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    hand, other = submit(), submit()
    assert hand.write(allowed=Status.QUEUED, status=Status.CANCELED)
    again = client.post(f"/v1/generations/{hand.id}/cancel")
    assert (again.status_code, again.json()["generation_status"]) == (409, "canceled")
    assert redis.lrange("rq:queue:rollover:shapes", 0, -1) == [other.id]
    assert read(client, other)["progress"]["queue_position"] == 0


def test_cancel_a_running_job_twice(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    for _ in range(2):
        response = client.post(f"/v1/generations/{hand.id}/cancel")
        assert response.status_code == 202
        assert (response.json()["status"], response.json()["cancel_requested"]) == ("running", True)
    assert hand.record.cancel_requested
    hand.finish(Status.CANCELED)
    assert read(client, hand)["status"] == "canceled"
    assert read(client, hand)["result"]["images"]


def test_cancel_a_job_that_was_given_back(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.search(1, 3)
    assert hand.write(status=Status.QUEUED)
    response = client.post(f"/v1/generations/{hand.id}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert hand.record.cancel_requested, "its next worker makes the result, and says what is to be paid"
    assert hand.write(allowed=Status.QUEUED, status=Status.RUNNING)


def test_cancel_an_ended_job(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.finish()
    before = read(client, hand)
    response = client.post(f"/v1/generations/{hand.id}/cancel")
    assert (response.status_code, response.json()["generation_status"]) == (409, "succeeded")
    assert read(client, hand) == before


def test_cancel_against_start_has_one_winner(submit: Submit, client: httpx.Client) -> None:
    for _ in range(20):
        hand = submit()
        with ThreadPoolExecutor(2) as pool:
            canceled = pool.submit(client.post, f"/v1/generations/{hand.id}/cancel")
            started = pool.submit(hand.write, allowed=Status.QUEUED, status=Status.RUNNING, attempts=1)
        assert canceled.result().json()["status"] == ("running" if started.result() else "canceled")
        assert hand.record.cancel_requested


def test_delete_leaves_nothing(submit: Submit, client: httpx.Client, redis: Redis, data_dir: Path) -> None:
    hand = submit()
    hand.start()
    hand.search(1, 2)
    hand.finish()
    assert (data_dir / "artifacts" / hand.id).exists()
    hand.take()
    response = client.delete(f"/v1/generations/{hand.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert not (data_dir / "artifacts" / hand.id).exists()
    assert set(redis.keys("*")) == {"rq:queues", "rollover:totals:shapes"}  # sums for Prometheus
    assert client.get(f"/v1/generations/{hand.id}").status_code == 404
    assert client.delete(f"/v1/generations/{hand.id}").status_code == 404
    assert client.get("/v1/generations").json()["data"] == []
    assert not hand.write(hand.candidate(3))
    assert set(redis.keys("*")) == {"rq:queues", "rollover:totals:shapes"}


def test_delete_frees_the_idempotency_key(client: httpx.Client) -> None:
    def post() -> str:
        headers = {"Idempotency-Key": "k"}
        return client.post("/v1/generations", json={"prompt": "x"}, headers=headers).json()["id"]

    first = post()
    client.post(f"/v1/generations/{first}/cancel")
    assert client.delete(f"/v1/generations/{first}").status_code == 204
    assert post() != first


@pytest.mark.parametrize("started", [False, True])
def test_delete_a_job_that_has_not_ended(submit: Submit, client: httpx.Client, started: bool) -> None:  # noqa: FBT001
    hand = submit()
    if started:
        hand.start()
    response = client.delete(f"/v1/generations/{hand.id}")
    assert (response.status_code, response.json()["code"]) == (409, "wrong_state")
    assert read(client, hand)["id"] == hand.id
