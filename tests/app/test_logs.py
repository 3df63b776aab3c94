"""The API's log: one JSON object a line, and nothing in it that is secret or forged."""

import json
import logging
import socket
import time
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from contracts.logs import JsonFormatter
from tests.app.hand import Hand
from tests.app.test_bad_input import refused


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, object]]]:
    """What was logged of requests, as it is written."""
    caplog.set_level(logging.INFO, logger="rollover.access")
    formatter = JsonFormatter()
    return lambda: [json.loads(formatter.format(r)) for r in caplog.records if r.name == "rollover.access"]


def test_a_request_is_logged_with_its_id_key_and_generation(
    client: httpx.Client, redis: Redis, lines: Callable[[], list[dict[str, object]]]
) -> None:
    key, secret = new_key("x", Limits())
    Keyring(redis).add(key)
    headers = {"Authorization": f"Bearer {secret}", "X-Request-Id": "mine-1"}
    submitted = client.post("/v1/generations", json={"prompt": "private"}, headers=headers)
    job = submitted.json()["id"]
    read = client.get(f"/v1/generations/{job}", headers={"Authorization": f"Bearer {secret}"})
    client.get("/healthz?secret=1")
    first, second, third = lines()
    assert (first["request"], first["status"], first["path"]) == ("mine-1", 202, "/v1/generations")
    assert (first["key"], first["generation"]) == (key.id, job)
    assert second["request"] == read.headers["x-request-id"]
    assert (second["method"], second["generation"]) == ("GET", job)
    assert third["path"] == "/healthz"
    assert submitted.headers["x-request-id"] == "mine-1"
    assert not [word for word in (secret, "private", "secret=1") if word in json.dumps(lines())]


@pytest.mark.parametrize("given", ["", "a b", 'x","level":"error', "x" * 65])
def test_an_id_that_could_forge_a_line_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 16


def test_a_defect_is_logged_with_its_request(
    submit: Callable[..., Hand],
    client: httpx.Client,
    redis: Redis,
    lines: Callable[[], list[dict[str, object]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hand = submit()
    redis.hset(f"rollover:job:{hand.id}", "progress", "broken")
    answer = client.get(f"/v1/generations/{hand.id}", headers={"X-Request-Id": "mine-1"})
    assert refused(answer, 500, "internal_error")
    assert answer.headers["x-request-id"] == "mine-1"
    last = lines()[-1]
    assert (last["status"], last["generation"], last["request"]) == (500, hand.id, "mine-1")
    [defect] = [record for record in caplog.records if record.exc_info]
    told = json.loads(JsonFormatter().format(defect))
    assert told["level"] == "error"
    assert "Traceback" in told["exception"]


def test_a_client_that_breaks_off_its_body_is_no_defect(
    client: httpx.Client, lines: Callable[[], list[dict[str, object]]], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.create_connection((client.base_url.host, client.base_url.port or 0))) as connection:
        head = "POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    end = time.monotonic() + 60
    while not lines():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lines()[-1]["status"] == 400
    assert not [record for record in caplog.records if record.exc_info]


def test_a_job_knows_the_request_that_submitted_it(client: httpx.Client, redis: Redis) -> None:
    for given in ({}, {"X-Request-Id": "mine-1"}):
        answer = client.post("/v1/generations", json={"prompt": "x"}, headers=given)
        stored = redis.hget(f"rollover:job:{answer.json()['id']}", "request_id")
        assert stored == answer.headers["x-request-id"]
