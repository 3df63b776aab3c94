"""Every route, called with what its own OpenAPI document allows and with what it does not.

A short form; `make fuzz` (CALLS=5000) is the long one.
"""

import math
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from redis import Redis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.keyring import Keyring, Limits, new_key
from app.main import create_app
from app.openapi import NOT_BLANK
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
ACCEPTED: Counter[str] = Counter()
BEYOND_SCHEMA = {
    r"/.*: Input should be a valid integer": "a schema takes 3.0 for an integer, and this server does not",
    r"/budget/nfe: .* needs at least": "a product of fields of `search` and `sampler`",
    r"/budget/nfe: Must be at most .* with the baseline's": "doubles where `baseline` is asked for",
    r"/search/plan_nfe: ": "lies between what the search needs and the budget",
    r"/search/back: ": "compares two fields",
    r"/search/first_level: ": "depends on `mode`, and on `sampler`",
    r"/search/initial_noises: ": "compares two fields, where `start` is 'top'",
    r"/sampler/steps: .*'rbf'": "depends on `search`",
    r"/sampler/\w+: Must be .* (for strategy|with kernel) '": "depends on `search`, and on `kernel`",
    r"/(num_images|n): .*'base'": "depends on `search`",
    r"/reward(/\d+)?(/name)?: .*differentiable": "depends on `sampler`",
    r"/reward: (Names a reward twice|At least one weight)": "is said of all terms together",
    r"/held_out/\d+: .*steers": "depends on `reward`",
    r"/webhook/url: ": "which hosts and ports a URL may name is no regular language one would read",
    r"/size: ": "two numbers in a text, each a multiple of something",
    r"/metadata: .*at most 16": "`user` is one of them, on OpenAI's route",
}
"""Why data may be refused that the document allows: each rule with why no JSON schema states it."""
STATE = {"idempotency_mismatch", "generation_failed"}
"""Codes that depend on what was asked before, and on how a search ends: here all are canceled."""
REFUSED: Counter[str] = Counter()


def beyond_schema(response: httpx.Response) -> bool:
    """Whether all that was wrong with a body is among the rules that the document cannot state."""
    problem = response.json() if response.status_code == 422 else {}
    if problem.get("code") in STATE:
        return True
    found = [f"{each.get('pointer')}: {each['detail']}" for each in problem.get("errors", [])]
    rules = [next((rule for rule in BEYOND_SCHEMA if re.match(rule, text)), None) for text in found]
    REFUSED.update(rule for rule in rules if rule)
    return bool(rules) and None not in rules


@pytest.fixture(scope="module")
def door(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client with a key of a server whose waiting jobs are soon canceled, as no worker ends them."""
    with Redis.from_url(valkey_url, decode_responses=True) as redis:
        redis.flushall()
        key, secret = new_key("fuzz", Limits(priority="high"))
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
    sys.stdout.write(
        f"\n{MADE.total()} calls: {dict(MADE)}\naccepted: {dict(ACCEPTED)}\nrefused: {dict(REFUSED)}\n"
    )


@SCHEMA.parametrize()
@settings(
    max_examples=math.ceil(CALLS / VARIED),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
def test_no_call_makes_a_5xx_or_an_answer_that_is_not_documented(case: Any, door: httpx.Client) -> None:  # noqa: ANN401
    headers = {"Authorization": door.headers["authorization"]}
    MADE[case.operation.label] += 1
    response = case.call(base_url=str(door.base_url), headers=headers, timeout=60)
    excused = [positive_data_acceptance] if beyond_schema(response) else []
    ACCEPTED[case.operation.label] += response.status_code < 300
    case.validate_response(response, headers=headers, excluded_checks=excused)


def test_what_the_server_calls_blank_the_document_does() -> None:
    prompt = {"type": "string", "pattern": NOT_BLANK}
    blanks = [chr(code) for code in range(0x3001) if chr(code).isspace()]
    assert not [blank for blank in blanks if jsonschema_rs.is_valid(prompt, blank)]
    assert jsonschema_rs.is_valid(prompt, "\x1f a")


def test_every_route_is_described() -> None:
    assert sum(len(methods) for methods in SCHEMA.raw_schema["paths"].values()) == ROUTES
