"""API keys: who gets in, what a key may spend, and that it sees its own jobs and no others."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from app import access
from app.keyring import Keyring, Limits, new_key
from app.store import keys_of
from contracts.jobs import Seconds, Status, Usage, hash_fields
from contracts.keys import KEYRING_KEY, job_key, trouble_key
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.app.hand import Hand
from tests.app.test_bad_input import UNKNOWN_ID, refused
from tests.conftest import DAY


@pytest.fixture
def as_key(client: httpx.Client, redis: Redis) -> Iterator[Callable[..., httpx.Client]]:
    """Make a key with limits; return a client that sends it."""
    clients: list[httpx.Client] = []

    def make(**limits: object) -> httpx.Client:
        key, secret = new_key("test", Limits.model_validate(limits))
        Keyring(redis).add(key)
        headers = {"Authorization": f"Bearer {secret}", "X-Key": key.id}
        clients.append(httpx.Client(base_url=client.base_url, headers=headers, timeout=30))
        return clients[-1]

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def open_address(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a server that others could reach."""
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, host="0.0.0.0")  # noqa: S104
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_why_no_engine_starts_is_for_this_machine_only(
    open_address: httpx.Client, client: httpx.Client, redis: Redis
) -> None:
    redis.set(trouble_key("shapes"), "no model at /srv/models/secret")
    assert "no model at /srv/models/secret" in client.get("/readyz").json()["detail"]
    told = open_address.get("/readyz").text
    assert "could not be started" in told
    assert "/srv" not in told


def post(client: httpx.Client, nfe: int = 100, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/v1/generations", json={"prompt": "x", "budget": {"nfe": nfe}}, headers=headers)


def told(response: httpx.Response) -> dict[str, tuple[str, str]]:
    """Of each limit that an answer tells of, by its name, the policy and what is left."""
    policies, states = (
        dict(item.strip().split(";", 1) for item in response.headers[name].split(","))
        for name in ("ratelimit-policy", "ratelimit")
    )
    assert policies.keys() == states.keys()
    return {name.strip('"'): (policies[name], states[name].split(";")[0]) for name in states}


def accepted(response: httpx.Response) -> str:
    assert response.status_code == 202, response.text
    return response.json()["id"]


def read(client: httpx.Client, generation: str) -> dict[str, Any]:
    return client.get(f"/v1/generations/{generation}").json()


def end(redis: Redis, generation: str, nfe_spent: int) -> None:
    """End a job as a worker does, having spent so much."""
    usage = Usage(nfe_spent=nfe_spent, model_forwards=0, reward_calls=0, decodes=0, seconds=Seconds())
    fields: Any = {**hash_fields(usage=usage), "status": Status.SUCCEEDED.value}
    redis.hset(job_key(generation), mapping=fields)


ROUTES = [
    ("POST", "/v1/generations"),
    ("GET", "/v1/generations"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}"),
    ("DELETE", f"/v1/generations/{UNKNOWN_ID}"),
    ("POST", f"/v1/generations/{UNKNOWN_ID}/cancel"),
    ("POST", f"/v1/generations/{UNKNOWN_ID}/extend"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}/events"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}/trace"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}/images/0"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}/previews/1"),
    ("GET", f"/v1/generations/{UNKNOWN_ID}/baseline"),
    ("POST", "/v1/quotes"),
    ("POST", "/v1/images/generations"),
    ("GET", "/v1/models"),
    ("GET", "/v1/rewards"),
    ("GET", "/v1/strategies"),
    ("GET", "/v1/webhooks/secret"),
]


def test_the_list_of_routes_is_complete(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = {
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if path.startswith("/v1") and {"401", "403", "429"} <= operation["responses"].keys()
    }
    assert len(described) == len(ROUTES) == sum(len(m) for p, m in paths.items() if p.startswith("/v1"))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_with_keys_every_route_needs_one(
    client: httpx.Client, as_key: Callable[..., httpx.Client], method: str, path: str
) -> None:
    allowed = as_key().request(method, path)
    assert allowed.status_code not in (401, 403, 429)
    for headers in ({}, {"Authorization": "Bearer rk_wrong"}, {"Authorization": "Basic eDp5"}):
        answer = client.request(method, path, headers=headers)
        refused(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_tells_of_the_server_alone_needs_no_key(
    client: httpx.Client, as_key: Callable[..., httpx.Client]
) -> None:
    as_key()
    for path in ("/healthz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/readyz").json()["code"] == "not_ready"
    assert [(answer.status_code, answer.content) for answer in map(client.head, ("/healthz", "/readyz"))] == [
        (200, b""),
        (503, b""),
    ]


def test_an_open_server_ignores_a_key_it_does_not_need(client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"Authorization": "Bearer sk-other"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "192.168.1.7",
        "localhost.evil.example",
        "a`b.evil.example",
        "[::1",
    ],
)
def test_a_page_that_gives_its_name_this_machines_address_gets_nothing(
    client: httpx.Client, redis: Redis, host: str
) -> None:
    for _ in range(2):  # the first answer must not open the door for the next
        problem = refused(client.get("/v1/generations", headers={"Host": host}), 403, "wrong_host")
        assert "localhost" in problem["detail"]
    assert client.get("/v1/generations", headers={"Host": "localhost:1"}).status_code == 200
    refused(client.get("/v1/generations", headers={"Host": host}), 403, "wrong_host")
    key, secret = new_key("proxied", Limits())
    Keyring(redis).add(key)
    time.sleep(access.OPEN_SECONDS)
    headers = {"Host": host, "Authorization": f"Bearer {secret}"}
    assert client.get("/v1/generations", headers=headers).status_code == 200


def test_beyond_loopback_a_server_without_keys_serves_nobody_and_says_what_to_do(
    open_address: httpx.Client, redis: Redis
) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}):
        problem = refused(open_address.get("/v1/generations", headers=headers), 403, "no_keys")
        assert "rollover keys create" in problem["detail"]
    assert open_address.get("/healthz").status_code == 200
    key, secret = new_key("first", Limits())
    Keyring(redis).add(key)
    answer = open_address.get("/v1/generations", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_addresses_that_only_this_machine_reaches(host: str) -> None:
    assert Settings(host=host).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
def test_addresses_that_others_reach(host: str) -> None:
    assert not Settings(host=host).local


def test_a_first_key_closes_a_server_that_was_open_within_its_rest(
    client: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "OPEN_SECONDS", 0.2)
    assert client.get("/v1/models").status_code == 200
    Keyring(redis).add(new_key("first", Limits())[0])
    time.sleep(0.25)
    refused(client.get("/v1/models"), 401, "unauthorized")


def test_a_revoked_key_is_refused_at_once_and_the_last_one_does_not_open_the_server(
    client: httpx.Client, as_key: Callable[..., httpx.Client], redis: Redis
) -> None:
    mine = as_key()
    assert mine.get("/v1/models").status_code == 200
    [key] = Keyring(redis).all()
    Keyring(redis).revoke(key)
    assert "revoked" in refused(mine.get("/v1/models"), 401, "unauthorized")["detail"]
    refused(client.get("/v1/models"), 401, "unauthorized")


def test_a_secret_must_have_the_whole_digest_and_not_only_the_keys_id(
    client: httpx.Client, redis: Redis
) -> None:
    key, secret = new_key("x", Limits())
    Keyring(redis).add(key.model_copy(update={"digest": key.digest[:16] + "0" * 48}))
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"})
    refused(answer, 401, "unauthorized")


def test_the_secret_is_stored_nowhere(as_key: Callable[..., httpx.Client], redis: Redis) -> None:
    mine = as_key(nfe_per_day=1000, requests_per_minute=10)
    secret = mine.headers["authorization"].removeprefix("Bearer ")
    accepted(post(mine))
    assert len(secret) > 40
    texts: list[str] = []
    for name in redis.scan_iter():
        kind: Any = redis.type(name)
        texts.append(name)
        if kind == "hash" and not name.startswith("rq:"):
            texts.append(str(redis.hgetall(name)))
        elif kind == "string":
            texts.append(str(redis.get(name)))
        elif kind == "stream":
            texts.append(str(redis.xrange(name)))
    assert KEYRING_KEY in texts
    assert not [text for text in texts if secret in text]


def test_a_key_sees_its_own_jobs_and_no_others(
    as_key: Callable[..., httpx.Client], redis: Redis, data_dir: Path
) -> None:
    mine, other = as_key(), as_key()
    own = accepted(post(mine))
    hand = Hand(redis, data_dir / "artifacts", own)
    hand.start()
    hand.search(1, 2)
    preview = hand.preview()
    hand.finish()
    rests = ["", "/events", "/trace", "/images/0", f"/previews/{preview}"]
    for rest in rests:
        assert mine.get(f"/v1/generations/{own}{rest}").status_code == 200
        refused(other.get(f"/v1/generations/{own}{rest}"), 404, "generation_not_found")
    refused(other.post(f"/v1/generations/{own}/cancel"), 404, "generation_not_found")
    refused(other.delete(f"/v1/generations/{own}"), 404, "generation_not_found")
    theirs = accepted(post(other))
    assert [job["id"] for job in mine.get("/v1/generations").json()["data"]] == [own]
    assert [job["id"] for job in other.get("/v1/generations").json()["data"]] == [theirs]
    listing = f"rollover:key:{mine.headers['x-key']}:jobs"
    assert redis.zcard(listing) == 1
    assert mine.delete(f"/v1/generations/{own}").status_code == 204
    assert redis.zcard(listing) == 0


def test_jobs_from_before_the_first_key_belong_to_nobody(
    client: httpx.Client, as_key: Callable[..., httpx.Client]
) -> None:
    old = accepted(post(client))
    mine = as_key()
    refused(mine.get(f"/v1/generations/{old}"), 404, "generation_not_found")
    assert mine.get("/v1/generations").json()["data"] == []


def test_pictures_are_kept_by_the_client_alone(submit: Callable[..., Hand], client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.search(1, 1)
    hand.finish()
    caching = client.get(f"/v1/generations/{hand.id}/images/0").headers["cache-control"]
    assert "private" in caching
    assert "public" not in caching


def test_two_keys_may_use_one_idempotency_key(as_key: Callable[..., httpx.Client]) -> None:
    mine, other = as_key(), as_key()
    first = accepted(post(mine, key="a"))
    assert accepted(post(other, 200, key="a")) != first
    assert accepted(post(mine, key="a")) == first


def test_requests_a_minute(as_key: Callable[..., httpx.Client], redis: Redis) -> None:
    mine = as_key(requests_per_minute=3)
    answers = [mine.get("/v1/models"), mine.get(f"/v1/generations/{UNKNOWN_ID}"), post(mine)]
    assert [answer.status_code for answer in answers] == [200, 404, 202]
    for left, answer in zip((2, 1, 0), answers, strict=True):
        assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=60'
        assert answer.headers["ratelimit"].startswith(f'"requests";r={left};t=')
    over = post(mine)
    refused(over, 429, "rate_limited")
    assert over.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert 1 <= int(over.headers["retry-after"]) <= 60
    redis.delete(f"rollover:key:{mine.headers['x-key']}:requests")  # as when its minute ends
    assert mine.get("/v1/models").status_code == 200
    assert as_key().get("/v1/models").headers.get("ratelimit") is None


def test_a_minute_begins_with_its_first_request_and_ends(
    as_key: Callable[..., httpx.Client], redis: Redis
) -> None:
    mine = as_key(requests_per_minute=5)
    counter = f"rollover:key:{mine.headers['x-key']}:requests"
    mine.get("/v1/models")
    before: Any = redis.pttl(counter)
    mine.get("/v1/models")
    after: Any = redis.pttl(counter)
    assert 0 < after <= before <= 60_000


@pytest.mark.usefixtures("same_day")
def test_nfe_a_day(as_key: Callable[..., httpx.Client]) -> None:
    mine = as_key(nfe_per_day=250)
    first = post(mine, 150)
    accepted(first)
    assert first.headers["ratelimit-policy"] == '"nfe";q=250;w=86400'
    assert first.headers["ratelimit"].startswith('"nfe";r=100;t=')
    before = time.time()
    over = post(mine, 101)
    after = time.time()
    assert "100 are left" in refused(over, 429, "nfe_exhausted")["detail"]
    assert over.headers["ratelimit"].startswith('"nfe";r=100;t=')
    assert DAY - after % DAY <= int(over.headers["retry-after"]) <= DAY - int(before) % DAY
    accepted(post(mine, 100))
    refused(post(mine, 47), 429, "nfe_exhausted")


def test_a_budget_that_no_day_could_pay_is_invalid(as_key: Callable[..., httpx.Client]) -> None:
    problem = refused(post(as_key(nfe_per_day=150), 151), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/budget/nfe"
    assert "150 a day with this API key" in problem["errors"][0]["detail"]


@pytest.mark.usefixtures("same_day")
def test_a_new_day_begins_with_the_whole_quota(as_key: Callable[..., httpx.Client], redis: Redis) -> None:
    mine = as_key(nfe_per_day=100)
    accepted(post(mine))
    refused(post(mine), 429, "nfe_exhausted")
    redis.hincrby(f"rollover:key:{mine.headers['x-key']}:spent", "day", -1)
    accepted(post(mine))


@pytest.mark.usefixtures("same_day")
def test_what_an_ended_job_did_not_spend_is_given_back_once(
    as_key: Callable[..., httpx.Client], redis: Redis
) -> None:
    mine = as_key(nfe_per_day=200)
    first = accepted(post(mine, 150))
    refused(post(mine), 429, "nfe_exhausted")
    end(redis, first, nfe_spent=60)
    second = post(mine, 100)
    accepted(second)
    assert second.headers["ratelimit"].startswith('"nfe";r=40;t=')
    refused(post(mine), 429, "nfe_exhausted")


def test_a_canceled_and_deleted_job_costs_what_it_spent(as_key: Callable[..., httpx.Client]) -> None:
    mine = as_key(nfe_per_day=100)
    job = accepted(post(mine))
    assert mine.post(f"/v1/generations/{job}/cancel").status_code == 200
    assert mine.delete(f"/v1/generations/{job}").status_code == 204
    accepted(post(mine))


def test_a_key_asks_for_no_higher_priority_than_it_may(as_key: Callable[..., httpx.Client]) -> None:
    def ask(client: httpx.Client, priority: str, route: str = "/v1/generations") -> httpx.Response:
        return client.post(route, json={"prompt": "x", "priority": priority})

    for route in ("/v1/generations", "/v1/quotes"):
        [error] = refused(ask(as_key(), "high", route), 422, "invalid_request")["errors"]
        assert (error["pointer"], error["allowed"]) == ("/priority", ["low", "normal"])
    [error] = refused(ask(as_key(priority="low"), "normal"), 422, "invalid_request")["errors"]
    assert error["allowed"] == ["low"]
    accepted(post(as_key(priority="low")))  # which asks for none
    for priority in ("low", "normal", "high"):
        accepted(ask(as_key(priority="high", nfe_per_day=300), priority))


def test_a_key_from_before_there_were_priorities_has_the_usual_one(redis: Redis) -> None:
    key, _ = new_key("old", Limits(priority="high"))
    stored = key.model_dump_json(exclude={"priority"})
    redis.hset(KEYRING_KEY, key.id, stored)
    assert Keyring(redis).all()[0].priority == "normal"


def test_keys_take_turns(as_key: Callable[..., httpx.Client]) -> None:
    greedy, modest = as_key(), as_key(priority="high")
    many = [accepted(post(greedy)) for _ in range(20)]
    late = modest.post("/v1/quotes", json={"prompt": "x", "budget": {"nfe": 100}}).json()
    assert late["queue"]["position"] == 1
    one = accepted(post(modest))
    positions = [read(greedy, job)["progress"]["queue_position"] for job in many]
    assert positions == [0, *range(2, 21)]
    assert read(modest, one)["progress"]["queue_position"] == 1
    assert modest.post(f"/v1/generations/{one}/cancel").json()["status"] == "canceled"
    assert read(greedy, many[-1])["progress"]["queue_position"] == 19


def test_a_higher_priority_comes_first(client: httpx.Client, redis: Redis) -> None:
    low, normal, high = [
        accepted(client.post("/v1/generations", json={"prompt": "x", "priority": priority}))
        for priority in ("low", "normal", "high")
    ]
    listed = client.get("/v1/generations").json()["data"]
    places = {job["id"]: job["progress"]["queue_position"] for job in listed}
    assert places == {high: 0, normal: 1, low: 2}
    for job in (high, low, normal):
        assert client.post(f"/v1/generations/{job}/cancel").status_code == 200
    assert not redis.exists(*keys_of("shapes"))


def test_generations_at_once(as_key: Callable[..., httpx.Client], redis: Redis, data_dir: Path) -> None:
    mine = as_key(concurrent=2)
    first, second = accepted(post(mine)), accepted(post(mine))
    over = post(mine)
    assert "2 generations" in refused(over, 429, "too_many_generations")["detail"]
    assert over.headers["retry-after"]
    assert told(over) == {"generations": ("q=2", "r=0")}
    Hand(redis, data_dir / "artifacts", first).start()
    refused(post(mine), 429, "too_many_generations")
    end(redis, first, nfe_spent=100)
    accepted(post(mine))
    refused(post(mine), 429, "too_many_generations")
    assert mine.post(f"/v1/generations/{second}/cancel").status_code == 200
    accepted(post(mine))


def test_an_accepted_submission_tells_how_many_more_there_may_be(
    as_key: Callable[..., httpx.Client], redis: Redis
) -> None:
    mine = as_key(concurrent=3)
    answers = [post(mine), post(mine)]
    end(redis, accepted(answers[0]), nfe_spent=100)
    answers.append(post(mine))
    assert [told(answer)["generations"] for answer in answers] == [
        ("q=3", "r=2"),
        ("q=3", "r=1"),
        ("q=3", "r=1"),
    ]


@pytest.mark.usefixtures("same_day")
def test_a_key_is_told_of_every_limit_that_a_submission_met(as_key: Callable[..., httpx.Client]) -> None:
    mine = as_key(requests_per_minute=9, nfe_per_day=250, concurrent=2)
    first = post(mine)
    requests = "q=9;w=60"
    assert told(first) == {
        "requests": (requests, "r=8"),
        "nfe": ("q=250;w=86400", "r=150"),
        "generations": ("q=2", "r=1"),
    }
    assert set(told(mine.get("/v1/models"))) == {"requests"}
    poor = post(mine, 200)
    refused(poor, 429, "nfe_exhausted")
    assert told(poor) == {
        "requests": (requests, "r=6"),
        "nfe": ("q=250;w=86400", "r=150"),
        "generations": ("q=2", "r=1"),
    }
    accepted(post(mine))
    busy = post(mine)
    refused(busy, 429, "too_many_generations")
    assert told(busy) == {
        "requests": (requests, "r=4"),
        "nfe": ("q=250;w=86400", "r=50"),
        "generations": ("q=2", "r=0"),
    }


@pytest.mark.usefixtures("same_day")
def test_limits_hold_for_many_submissions_at_once(as_key: Callable[..., httpx.Client], redis: Redis) -> None:
    mine = as_key(nfe_per_day=1000)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: post(mine).status_code, range(36)))
    assert sorted(statuses) == [202] * 10 + [429] * 26
    waiting, line, _ = keys_of("shapes")
    held: Any = [redis.zcard("rollover:jobs"), redis.llen(waiting), redis.zcard(line)]
    assert held == [10, 1, 9]


def test_nothing_is_charged_for_what_is_refused_or_repeated(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    key, secret = new_key("test", Limits(nfe_per_day=300, concurrent=3))
    Keyring(redis).add(key)
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, max_queue=1)
    headers = {"Authorization": f"Bearer {secret}"}
    with serving(settings) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        accepted(post(client, 100, key="a"))
        accepted(post(client, 100, key="a"))
        refused(post(client, 101, key="a"), 422, "idempotency_mismatch")
        refused(post(client, 100), 503, "queue_full")
        refused(post(client, 1), 422, "invalid_request")
    assert redis.hget(f"rollover:key:{key.id}:spent", "nfe") == "100"
    charges: Any = redis.hlen(f"rollover:key:{key.id}:charges")
    assert charges == 1
    names: Any = redis.keys("rollover:job:*")
    assert len(names) == 2  # one job and its events: what was refused left nothing


def test_a_job_with_a_baseline_takes_turns_for_all_that_it_may_spend(
    as_key: Callable[..., httpx.Client], redis: Redis
) -> None:
    body = {"prompt": "x", "budget": {"nfe": 100}, "baseline": True}
    both, plain = as_key(), as_key()
    accepted(post(plain))
    doubled = [accepted(both.post("/v1/generations", json=body)) for _ in range(2)]
    single = [accepted(post(plain)) for _ in range(3)]
    line = redis.zrange(keys_of("shapes")[1], 0, -1)
    order = [str(member).partition(":")[0] for member in line]
    assert order.index(single[1]) < order.index(doubled[1])
