"""POST /v1/quotes: what a submission would do and take, from what jobs have taken."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from contracts.beats import WorkerState
from contracts.jobs import Seconds, Status, Usage, hash_fields, now
from contracts.keys import pace_key
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from tests.app.hand import Hand, beat
from tests.app.test_bad_input import refused

ROUNDING = 0.1
"""Of the seconds that are told."""


def quote(client: httpx.Client, **body: object) -> dict[str, Any]:
    response = client.post("/v1/quotes", json={"prompt": "x", **body})
    assert response.status_code == 200, response.text
    return response.json()


def done(redis: Any, hand: Hand, nfe: int, seconds: float, attempts: int = 1) -> None:  # noqa: ANN401
    """End a job as a worker does that took so long."""
    hand.start()
    redis.hset(write_keys(hand.id)[0], "attempts", attempts)
    usage = Usage(nfe_spent=nfe, model_forwards=0, reward_calls=0, decodes=0, seconds=Seconds(total=seconds))
    args = write_args(
        allowed=[Status.RUNNING],
        status=Status.SUCCEEDED,
        fence=attempts,
        fields=hash_fields(usage=usage, completed_at=now()),
    )
    assert redis.eval(WRITE_SCRIPT, 2, *write_keys(hand.id), *args)[0] == 1
    hand.take()


def test_a_quote_resolves_and_plans_without_running(client: httpx.Client, redis: Redis) -> None:
    answer = quote(client, budget={"nfe": 501}, seed=1)
    assert answer["request"]["search"]["strategy"] == "rbf"
    assert answer["plan"] == {
        "nfe": 501,
        "nfe_unspent": 0,
        "initial_noises": 50,
        "chains": 2,
        "levels": 9,
        "quota": 24,
        "shares": [224, 223],
        "draws": None,
        "finish_steps": 4,
        "runs": None,
        "steps": None,
    }
    assert answer["nfe_per_second"] is None
    assert answer["expected_seconds"] is None
    assert answer["queue"] == {"position": 0, "workers": 0, "wait_seconds": None}
    assert redis.keys("*") == []


@pytest.mark.parametrize(
    ("search", "nfe", "told"),
    [
        ({"strategy": "zero_order"}, 105, {"nfe": 100, "draws": [4, 4, 2], "steps": 10, "finish_steps": 0}),
        ({"strategy": "sop"}, 101, {"nfe": 100, "draws": [4, 3, 3, 3, 3, 3, 3, 3], "steps": 4}),
        ({"strategy": "smc"}, 99, {"nfe": 99, "levels": 10, "draws": [10] * 5 + [9] * 5, "finish_steps": 4}),
        (
            {"strategy": "svdd"},
            99,
            {"nfe": 99, "quota": 4, "shares": [48, 47], "draws": [10] * 7 + [9] + [8] * 2},
        ),
        (
            {"strategy": "code"},
            99,
            {"nfe": 98, "chains": 2, "levels": 5, "quota": 4, "draws": [10, 10, 10, 9, 8]},
        ),
        ({"strategy": "evolution", "steps": 4}, 50, {"nfe": 48, "draws": [3, 2, 2, 2, 2], "finish_steps": 4}),
    ],
    ids=str,
)
def test_every_strategy_tells_what_it_will_spend(
    client: httpx.Client, search: dict[str, Any], nfe: int, told: dict[str, Any]
) -> None:
    plan = quote(client, search=search, budget={"nfe": nfe})["plan"]
    assert plan["nfe"] + plan["nfe_unspent"] == nfe
    assert {name: plan[name] for name in told} == told


def test_time_comes_from_what_jobs_took(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    done(redis, submit(), nfe=200, seconds=10.0)
    beat(redis, WorkerState.BUSY)
    answer = quote(client, budget={"nfe": 400})
    assert (answer["nfe_per_second"], answer["expected_seconds"]) == (20.0, 20.0)
    assert answer["queue"] == {"position": 0, "workers": 1, "wait_seconds": 5.0}
    for _ in range(3):
        submit()
    assert quote(client)["queue"] == {"position": 3, "workers": 1, "wait_seconds": 35.0}
    beat(redis, WorkerState.BUSY, name="w2")
    assert quote(client)["queue"] == {"position": 3, "workers": 2, "wait_seconds": 15.0}
    assert quote(client, budget={"nfe": 400, "seconds": 7.5})["expected_seconds"] == 7.5


def test_the_wait_is_for_what_the_running_job_has_left(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    done(redis, submit(), nfe=200, seconds=10.0)
    long = submit(budget={"nfe": 2000})
    long.start()
    long.take()
    redis.zadd("rq:wip:rollover:shapes", {f"{long.id}:1": 0})
    beat(redis, WorkerState.BUSY)
    assert quote(client)["queue"]["wait_seconds"] == 100.0
    long.search(1, 1000)
    assert quote(client)["queue"]["wait_seconds"] == 50.0
    submit()
    assert quote(client)["queue"]["wait_seconds"] == 60.0
    beat(redis, WorkerState.READY, name="w2")
    assert quote(client)["queue"]["wait_seconds"] == 10.0


def test_a_running_jobs_own_rate_tells_where_no_other_is_known(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    hand = submit(budget={"nfe": 200})
    hand.start()  # 10 s ago
    hand.take()
    redis.zadd("rq:wip:rollover:shapes", {f"{hand.id}:1": 0})
    beat(redis, WorkerState.BUSY)
    assert quote(client)["queue"]["wait_seconds"] is None
    hand.search(1, 50)
    before, told, after = hand.age, quote(client)["queue"]["wait_seconds"], hand.age
    assert 3 * before - ROUNDING <= told <= 3 * after + ROUNDING


def test_a_free_worker_makes_no_wait(client: httpx.Client, redis: Redis) -> None:
    beat(redis, WorkerState.READY)
    beat(redis, WorkerState.LOADING, name="w2")
    assert quote(client)["queue"] == {"position": 0, "workers": 1, "wait_seconds": 0.0}


def test_newer_jobs_count_more_and_repeated_ones_not_at_all(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    done(redis, submit(), nfe=100, seconds=100.0)
    for _ in range(12):
        done(redis, submit(), nfe=100, seconds=10.0)
    assert quote(client)["nfe_per_second"] == pytest.approx(10, rel=0.2)
    before = quote(client)["nfe_per_second"]
    done(redis, submit(), nfe=100, seconds=0.1, attempts=2)
    assert quote(client)["nfe_per_second"] == before


def test_a_budget_of_time_alone_is_laid_out_at_the_pace_and_stored(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    time_alone = {"budget": {"seconds": 30}}
    assert quote(client, **time_alone)["request"]["budget"]["nfe"] == 200
    done(redis, submit(), nfe=200, seconds=10.0)
    answer = quote(client, **time_alone)
    assert (answer["nfe_per_second"], answer["request"]["budget"]["nfe"]) == (20.0, 540)
    assert (answer["plan"]["nfe"], answer["expected_seconds"]) == (540, 27.0)
    hand = submit(**time_alone)
    job = client.get(f"/v1/generations/{hand.id}").json()
    assert job["request"]["budget"] == answer["request"]["budget"]
    assert job["progress"]["nfe_budget"] == 540
    done(redis, submit(), nfe=200, seconds=100.0)
    assert client.get(f"/v1/generations/{hand.id}").json()["request"]["budget"] == answer["request"]["budget"]
    assert quote(client, budget={"patience": 9})["request"]["budget"]["nfe"] == 200


def test_a_pace_is_that_of_jobs_of_the_size_where_there_are_any(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    done(redis, submit(), nfe=200, seconds=10.0)
    other = pace_key("shapes", (96, 96))
    redis.rename(pace_key("shapes", (64, 64)), other)
    assert 0 < redis.ttl(other) <= 30 * 24 * 3600
    redis.hset(other, mapping={"nfe": 200, "seconds": 100.0})
    assert quote(client)["nfe_per_second"] == 20.0
    redis.rename(other, pace_key("shapes", (64, 64)))
    answer = quote(client, budget={"seconds": 100})
    assert (answer["nfe_per_second"], answer["request"]["budget"]["nfe"]) == (2.0, 180)


def test_what_cannot_be_submitted_cannot_be_quoted(client: httpx.Client) -> None:
    problem = refused(client.post("/v1/quotes", json={"prompt": "x", "stepz": 3}), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/stepz"
    refused(client.post("/v1/quotes", content=b"{"), 415, "unsupported_media_type")
