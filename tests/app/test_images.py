"""POST /v1/images/generations, driven by OpenAI's own client; a hand moves the search along."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai import OpenAI
from redis import Redis

from contracts.events import Failed
from contracts.jobs import JobError, Status
from contracts.keys import preview_path
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.app.hand import PNG, Hand
from tests.app.test_bad_input import refused
from tests.chaos.valkey import Valkey


@pytest.fixture
def client_of_openai(client: httpx.Client) -> Iterator[OpenAI]:
    # The environment's proxies are not for loopback.
    http = httpx2.Client(trust_env=False, timeout=30)
    with OpenAI(base_url=f"{client.base_url}/v1", api_key="any", http_client=http, max_retries=0) as it:
        yield it


def submitted(redis: Any) -> str:  # noqa: ANN401
    """The id of the next job that is submitted."""
    end = time.monotonic() + 60
    while not redis.zcard("rollover:jobs"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return redis.zrange("rollover:jobs", 0, 0)[0]


def taken(redis: Any, artifacts: Path) -> Hand:  # noqa: ANN401
    """The hand of the next job that is submitted."""
    hand = Hand(redis, artifacts, submitted(redis))
    hand.start()
    return hand


@contextmanager
def working(redis: Redis, data_dir: Path, work: Callable[[Hand], None]) -> Iterator[None]:
    """Do a worker's work on the next job while the block runs."""
    thread = threading.Thread(target=lambda: work(taken(redis, data_dir / "artifacts")))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def succeed(hand: Hand) -> None:
    hand.search(1, 3)
    hand.finish()


def fail(hand: Hand) -> None:
    error = JobError(code="reward_failed", title="Reward failed", detail="It cannot read this.")
    assert hand.write(Failed(error=error), status=Status.FAILED, error=error)


def with_previews(hand: Hand) -> None:
    for last in (60, 120, 180):
        hand.search(last - 59, last)
        hand.preview()
    hand.finish()


def test_the_official_client_gets_the_picture(
    client_of_openai: OpenAI, client: httpx.Client, redis: Redis, data_dir: Path
) -> None:
    with working(redis, data_dir, succeed):
        answer = client_of_openai.images.generate(
            prompt="a red circle",
            model="shapes",
            n=2,
            size="64x64",
            response_format="b64_json",
            user="me",
            extra_body={"reward": "brightness", "budget": {"nfe": 100}, "seed": 7},
        )
    assert answer.data
    assert base64.b64decode(answer.data[0].b64_json or "") == PNG
    assert (answer.size, answer.output_format) == ("64x64", "png")
    assert abs(answer.created - time.time()) < 300
    [job] = client.get("/v1/generations").json()["data"]
    request = job["request"]
    assert (request["num_images"], request["seed"], request["budget"]["nfe"]) == (2, 7, 100)
    assert (request["reward"][0]["name"], request["metadata"]) == ("brightness", {"user": "me"})
    assert request["previews"] == "none"


def test_the_official_client_streams_previews_and_the_picture(
    client_of_openai: OpenAI, redis: Redis, data_dir: Path
) -> None:
    with working(redis, data_dir, with_previews):
        stream = client_of_openai.images.generate(
            prompt="a red circle", stream=True, partial_images=2, extra_body={"budget": {"nfe": 200}}
        )
        events: list[Any] = list(stream)
    partial = "image_generation.partial_image"
    assert [event.type for event in events] == [partial, partial, "image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert [base64.b64decode(event.b64_json) for event in events] == [PNG] * 3
    assert {event.size for event in events} == {"64x64"}


def test_a_preview_that_cannot_be_read_is_left_out(
    client_of_openai: OpenAI, redis: Redis, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(hand: Hand) -> None:
        hand.search(1, 60)
        (hand.artifacts / preview_path(hand.id, hand.seq + 1)).mkdir(parents=True)
        hand.level()
        hand.search(61, 120)
        hand.preview()
        hand.finish()

    with working(redis, data_dir, work):
        stream = client_of_openai.images.generate(
            prompt="x", stream=True, partial_images=3, extra_body={"budget": {"nfe": 200}}
        )
        events: list[Any] = list(stream)
    partial = "image_generation.partial_image"
    assert [event.type for event in events] == [partial, "image_generation.completed"]
    assert "artifact store" in caplog.text


def test_a_search_that_fails_is_an_error_of_the_official_client(
    client_of_openai: OpenAI, redis: Redis, data_dir: Path
) -> None:
    failure = pytest.raises(openai.UnprocessableEntityError, match=r"cannot read this\. \(reward_failed\)")
    with working(redis, data_dir, fail), failure as refusal:
        client_of_openai.images.generate(prompt="good morning")
    assert refusal.value.code == "generation_failed"
    redis.flushall()
    with working(redis, data_dir, fail):
        stream = client_of_openai.images.generate(prompt="good morning", stream=True)
        with pytest.raises(openai.APIError, match="reward_failed"):
            list(stream)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": "1024x1024"}, "/size: The width must be 64 .* /size: The height must be 64"),
        ({"model": "gpt-image-1"}, r"/model: Unknown model 'gpt-image-1'\. Allowed: shapes\."),
        ({"style": "vivid"}, r"Unknown field 'style'\. Allowed: background, baseline, "),
        ({"quality": "hd"}, r"/quality: Must be 'auto'\.$"),
    ],
)
def test_the_official_client_shows_what_is_allowed(
    client_of_openai: OpenAI, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=words):
        client_of_openai.images.generate(prompt="x", **fields)


def test_the_official_client_shows_that_there_is_no_such_route(client_of_openai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/images/edits is not a route of this server"):
        client_of_openai.images.edit(prompt="x", image=b"")


def followed(redis: Any, times: int = 1) -> None:  # noqa: ANN401
    """Return when the server waits for events of so many searches."""
    end = time.monotonic() + 60
    while redis.info("clients")["blocked_clients"] != times:
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def held(url: str, **fields: object) -> Iterator[Future[httpx.Response]]:
    """Ask for a picture, and do the block while the answer is due."""
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url, timeout=60) as client:
        yield pool.submit(client.post, "/v1/images/generations", json={"prompt": "x", **fields})


@pytest.mark.parametrize("stream", [False, True])
def test_redis_may_be_away_while_a_client_waits(short_dir: Path, stream: bool) -> None:  # noqa: FBT001
    with Valkey(short_dir) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        settings = Settings(redis_url=valkey.url, data_dir=short_dir)
        with serving(settings) as url, held(url, stream=stream) as answer:
            followed(redis)
            valkey.kill()
            time.sleep(1)  # longer than redis-py tries again
            assert not answer.done()
            valkey.start()
            succeed(taken(redis, short_dir / "artifacts"))
            assert answer.result().status_code == 200
            assert base64.b64encode(PNG).decode() in answer.result().text
            assert redis.zcard("rollover:jobs") == 1


def test_redis_away_for_too_long_is_a_503(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.images.PATIENCE", 0.0)
    with Valkey(short_dir) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        settings = Settings(redis_url=valkey.url, data_dir=short_dir)
        with serving(settings) as url, held(url) as answer:
            followed(redis)
            valkey.kill()
            refused(answer.result(), 503, "redis_unavailable")
            valkey.start()


def test_an_answer_that_cannot_be_waited_for_cancels_its_search(
    client: httpx.Client,
    redis: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.store.BLOCK_MS", 100)
    try:
        redis.execute_command("ACL", "SETUSER", "default", "-xread")
        with held(str(client.base_url)) as answer:
            job = submitted(redis)
            refused(answer.result(), 500, "internal_error")
        assert redis.hget(f"rollover:job:{job}", "status") == "canceled"
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+xread")


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_stops_cancels_what_a_client_waits_for(
    redis_url: str,
    redis: Any,  # noqa: ANN401
    tmp_path: Path,
    stream: bool,  # noqa: FBT001
) -> None:
    with serving(Settings(redis_url=redis_url, data_dir=tmp_path)) as url:
        pool, client = ThreadPoolExecutor(1), httpx.Client(base_url=url, timeout=60)
        pool.submit(client.post, "/v1/images/generations", json={"prompt": "x", "stream": stream})
        job = submitted(redis)
    pool.shutdown()
    client.close()
    assert redis.hget(f"rollover:job:{job}", "status") == "canceled"


@contextmanager
def leaving(client: httpx.Client, redis: Redis, *, stream: bool, **headers: str) -> Iterator[str]:
    """Ask for a picture with the job's id in the block, and leave at its end."""
    body = json.dumps({"prompt": "x", "stream": stream, "partial_images": 0})
    with closing(HTTPConnection(client.base_url.host, client.base_url.port, timeout=60)) as connection:
        headers["Content-Type"] = "application/json"
        connection.request("POST", "/v1/images/generations", body, headers)
        job = submitted(redis)
        if stream:
            connection.getresponse()  # it has begun
        yield job


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_search(client: httpx.Client, redis: Any, stream: bool) -> None:  # noqa: ANN401, FBT001
    with leaving(client, redis, stream=stream) as job:
        pass
    end = time.monotonic() + 60
    while redis.hget(f"rollover:job:{job}", "status") != "canceled":
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_with_an_idempotency_key_a_client_that_left_can_come_back(
    client: httpx.Client,
    client_of_openai: OpenAI,
    redis: Redis,
    data_dir: Path,
    stream: bool,  # noqa: FBT001
) -> None:
    headers = {"Idempotency-Key": "one"}
    with leaving(client, redis, stream=stream, **headers):
        followed(redis)
    followed(redis, times=0)
    with working(redis, data_dir, succeed):
        answer = client_of_openai.images.with_raw_response.generate(prompt="x", extra_headers=headers)
    assert answer.headers["idempotency-replayed"] == "true"
    assert redis.zcard("rollover:jobs") == 1
    with pytest.raises(openai.UnprocessableEntityError, match="another body"):
        client_of_openai.images.generate(prompt="y", extra_headers=headers)


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"n": 17}, "/n", "less than or equal to 16"),
        ({"n": "2"}, "/n", "integer"),
        ({"size": "1024x1024"}, "/size", "The width must be 64"),
        ({"nfe": 30}, "/nfe", "Did you mean 'budget.nfe'?"),
        ({"size": "big"}, "/size", "pattern"),
        ({"response_format": "url"}, "/response_format", "b64_json"),
        ({"quality": "hd"}, "/quality", "auto"),
        ({"num_images": 2}, "/num_images", "Unknown field"),
        ({"rewards": "brightness"}, "/rewards", "Did you mean 'reward'?"),
        ({"budget": {"nef": 1}}, "/budget/nef", "Did you mean 'nfe'?"),
        ({"partial_images": 4}, "/partial_images", "less than or equal to 3"),
        ({"model": "gpt-image-1"}, "/model", "Unknown model"),
        ({"user": "me", "metadata": []}, "/metadata", "object"),
        ({"prompt": 3}, "/prompt", "string"),
    ],
)
def test_what_cannot_be_used_is_pointed_at(
    client: httpx.Client, redis: Redis, body: dict[str, object], pointer: str, words: str
) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": "x"} | body)
    problem = refused(answer, 422, "invalid_request")
    assert {error["pointer"] for error in problem["errors"]} == {pointer}
    assert words in json.dumps(problem["errors"])
    assert redis.zcard("rollover:jobs") == 0


@pytest.mark.parametrize("body", ["[]", "3", "null"])
def test_a_body_that_is_no_object(client: httpx.Client, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    refused(client.post("/v1/images/generations", content=body, headers=headers), 422, "invalid_request")
