"""The catalogue, readiness, the OpenAPI document, and the process itself."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis import Redis

from contracts.beats import WorkerState
from tests.app.hand import Hand, beat
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def test_a_job_without_a_worker_stays_queued_and_readyz_says_why(
    submit: Callable[..., Hand], client: httpx.Client, redis: Redis
) -> None:
    hand = submit()
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert response.json()["reasons"] == ["No live worker for model 'shapes'."]
    assert response.headers["retry-after"]
    assert client.get(f"/v1/generations/{hand.id}").json()["status"] == "queued"
    beat(redis, WorkerState.LOADING)
    assert client.get("/readyz").json()["reasons"] == ["The worker for model 'shapes' is still loading it."]
    assert not client.get("/v1/models").json()["data"][0]["available"]
    beat(redis, WorkerState.WARMING)
    warming = "The worker for model 'shapes' has loaded it and is warming up."
    assert client.get("/readyz").json()["reasons"] == [warming]
    assert not client.get("/v1/models").json()["data"][0]["available"]
    beat(redis, WorkerState.BUSY)
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"status": "ok"})
    redis.delete("rollover:worker:w1")
    assert client.get("/readyz").status_code == 503


def test_a_worker_of_another_model_does_not_count(client: httpx.Client, redis: Redis) -> None:
    beat(redis, WorkerState.READY, model="other")
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    "setting",
    [
        "min-replicas-to-write",  # NOREPLICAS, as a replicated store answers cut off
        "maxmemory",  # OOM
    ],
)
def test_a_redis_that_takes_no_writes_is_a_503_until_it_does_again(
    client: httpx.Client, redis: Redis, setting: str
) -> None:
    redis.config_set(setting, 1)
    try:
        answer = client.post("/v1/generations", json={"prompt": "x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
        assert answer.headers["retry-after"]
        assert client.get("/v1/generations").json()["data"] == []
    finally:
        redis.config_set(setting, 0)
    assert client.post("/v1/generations", json={"prompt": "x"}).status_code == 202


def test_models(client: httpx.Client, redis: Redis) -> None:
    beat(redis, WorkerState.READY, name="w1")
    beat(redis, WorkerState.READY, name="w2")
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["default"], model["available"], model["workers"]) == ("shapes", True, True, 2)
    assert model["params"]["properties"]["width"]["maximum"] == 64
    assert model["params"]["properties"]["guidance_scale"] == {"type": "null"}


def test_every_reward_listed_can_be_asked_for(client: httpx.Client) -> None:
    rewards = client.get("/v1/rewards").json()["data"]
    usable = [reward for reward in rewards if reward["available"]]
    assert len(usable) == 8
    for reward in usable:
        assert reward["params"]["type"] == "object"
        assert (
            client.post("/v1/generations", json={"prompt": "x", "reward": reward["name"]}).status_code == 202
        )


def test_a_reward_without_its_setting_is_listed_and_refused(client: httpx.Client) -> None:
    rewards = client.get("/v1/rewards").json()["data"]
    [reward] = [reward for reward in rewards if reward["name"] == "pickscore"]
    assert (reward["available"], reward["setting"]) == (False, "ROLLOVER_REWARD_PATHS")
    for body in ({"reward": "pickscore"}, {"held_out": ["pickscore"]}):
        answer = client.post("/v1/generations", json={"prompt": "x", **body})
        [problem] = answer.json()["errors"]
        assert answer.status_code == 422
        assert "its ROLLOVER_REWARD_PATHS says nothing of it" in problem["detail"]
        assert "brightness" in problem["allowed"]
        assert "pickscore" not in problem["allowed"]


def test_every_strategy_listed_can_be_asked_for_with_its_own_defaults(client: httpx.Client) -> None:
    answer = client.get("/v1/strategies").json()
    assert [s["name"] for s in answer["data"] if s["default"]] == ["rbf"]
    for strategy in answer["data"]:
        search = {name: field["default"] for name, field in strategy["params"]["properties"].items()}
        response = client.post("/v1/generations", json={"prompt": "x", "search": search})
        assert response.json()["request"]["search"]["strategy"] == strategy["name"]
    ways = {strategy["name"]: strategy["sampler"] for strategy in answer["data"]}
    assert ways["rbf"] == {}
    assert ways["zero_order"] == {"interpolant": "linear", "kernel": "ode", "grid": "linear"}


def test_healthz_and_the_documentation(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    page = client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any(source.endswith(".js") for source in sources)
    assert [client.get(source).status_code for source in sources] == [200] * len(sources)
    assert "//" not in "".join(sources)


def test_the_studio_loads_only_its_own_files(client: httpx.Client) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    sources = re.findall(r'(?:src|href)="(/studio/[^"]+)"', page.text)
    assert len(sources) == 3
    assert [client.get(source).status_code for source in sources] == [200] * len(sources)
    assert client.get("/studio/../main.py").status_code == 404
    assert client.get("/studio/none.js").json()["code"] == "not_found"


@pytest.mark.parametrize("path", ["/", "/studio/index.html", "/studio/studio.js"])
def test_no_page_may_frame_the_studio(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-cache"


def test_openapi_says_of_every_route_what_it_does(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    said = {operation["summary"] for methods in paths.values() for operation in methods.values()}
    assert "Say that the process lives; nothing else is looked at" in said
    assert all(len(summary.split()) > 2 and not summary.endswith(".") for summary in said)


def test_openapi_describes_the_body_and_its_references_resolve(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    body = document["paths"]["/v1/generations"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert schemas[body["$ref"].rpartition("/")[2]]["required"] == ["prompt"]
    references = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            references.update([node["$ref"]] if "$ref" in node else [])
            list(map(walk, node.values()))
        elif isinstance(node, list):
            list(map(walk, node))

    walk(document)
    assert {r.rpartition("/")[2] for r in references} <= set(schemas)
    assert "LevelEvent" in schemas


def test_the_api_needs_no_machine_learning() -> None:
    heavy = {"torch", "numpy", "diffusers", "transformers"}
    program = f"import app.main, sys; print(sorted({heavy} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "ROLLOVER_REDIS_URL is not set"),
        ({"ROLLOVER_REDIS_URL": "redis://x", "ROLLOVER_PORT": "x"}, "ROLLOVER_PORT: Input"),
        ({"ROLLOVER_REDIS_URL": "redis://x", "ROLLOVER_MODELS": "shape"}, "Did you mean 'shapes'?"),
        ({"ROLLOVER_REDIS_URL": "http://x"}, "Redis URL"),
    ],
)
def test_settings_that_cannot_be_used_are_named(environment: dict[str, str], words: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
    outcome = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 2
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_the_process_serves_and_ends_at_a_signal(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "ROLLOVER_REDIS_URL": redis_url,
        "ROLLOVER_PORT": str(port),
        "ROLLOVER_DATA_DIR": str(tmp_path),
    }
    with subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=os.environ | environment) as process:
        try:
            health = httpx.Client(
                base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8), timeout=60
            )
            with health:
                assert health.get("/healthz").json() == {"status": "ok"}
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
