"""Every route, called with what its own OpenAPI document allows and with what it does not.

A short form; `make fuzz` (CALLS=5000) is the long one.
"""

import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from redis import Redis
from schemathesis.checks import CHECKS

from app.keyring import Keyring, Limits, new_key
from app.main import create_app
from contracts.beats import WorkerState
from contracts.keys import worker_key
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.app.hand import beat

SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(redis_url="redis://nowhere")).openapi())
# What a URL says besides is ignored, as everywhere on the web.
SCHEMA.config.generation.update(allow_extra_parameters=False)
ROUTES = sum(1 for _ in SCHEMA.get_all_operations())
VARIED = sum(
    1
    for methods in SCHEMA.raw_schema["paths"].values()
    for operation in methods.values()
    if "requestBody" in operation or "parameters" in operation
)
"""Routes that can be called in more than one way; the others take no part of the calls."""
CALLS = int(os.environ.get("CALLS", "300"))
MADE: Counter[str] = Counter()
RULES_BEYOND_SCHEMA = {
    # A JSON schema cannot say that a budget pays for its search, or which rewards fit which model.
    "positive_data_acceptance",
}


@pytest.fixture(scope="module")
def door(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client with a key of a server whose waiting jobs are soon canceled, as no worker ends them."""
    with Redis.from_url(valkey_url, decode_responses=True) as redis:
        redis.flushall()
        key, secret = new_key("fuzz", Limits())
        Keyring(redis).add(key)
        beat(redis, WorkerState.READY)
        redis.persist(worker_key("w1"))
    ended = threading.Event()
    data_dir = tmp_path_factory.mktemp("fuzz")
    headers = {"Authorization": f"Bearer {secret}"}
    with (
        serving(Settings(redis_url=valkey_url, data_dir=data_dir)) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):

        def cancel() -> None:
            while not ended.wait(0.05):
                for job in client.get("/v1/generations?status=queued&limit=100").json()["data"]:
                    client.post(job["urls"]["cancel"])

        thread = threading.Thread(target=cancel)
        thread.start()
        yield client
        ended.set()
        thread.join()
    sys.stdout.write(f"\n{MADE.total()} calls: {dict(MADE)}\n")


@SCHEMA.parametrize()
@settings(
    max_examples=math.ceil(CALLS / VARIED),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
def test_no_call_makes_a_5xx_or_an_answer_that_is_not_documented(case: Any, door: httpx.Client) -> None:  # noqa: ANN401
    excluded = [check for check in CHECKS.get_all() if check.__name__ in RULES_BEYOND_SCHEMA]
    headers = {"Authorization": door.headers["authorization"]}
    MADE[case.operation.label] += 1
    case.call_and_validate(base_url=str(door.base_url), headers=headers, excluded_checks=excluded)


def test_every_route_is_described() -> None:
    assert sum(len(methods) for methods in SCHEMA.raw_schema["paths"].values()) == ROUTES
