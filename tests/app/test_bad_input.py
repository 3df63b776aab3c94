"""Nothing a client sends is accepted by mistake, makes a 5xx, or is refused without saying where and why."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from contracts.catalogue import STRATEGIES
from contracts.errors import MOST_PROBLEMS

UNKNOWN_ID = "gen_" + "0" * 26


def post(client: httpx.Client, body: str | bytes, **headers: str) -> httpx.Response:
    return client.post(
        "/v1/generations", content=body, headers={"Content-Type": "application/json", **headers}
    )


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is the problem expected, and return it."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:rollover:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    return problem


# what is posted beside the prompt -> (pointer, words of the detail) of the one problem it has
INVALID: list[tuple[str, str, str]] = [
    ('"prompt": ""', "/prompt", "at least 1 character"),
    ('"prompt": "  "', "/prompt", "blank"),
    ('"prompt": 5', "/prompt", "string"),
    ('"prompt": null', "/prompt", "string"),
    (f'"prompt": "{"x" * 2001}"', "/prompt", "at most 2000"),
    ('"model": "shape"', "/model", "Did you mean 'shapes'?"),
    ('"model": ["shapes"]', "/model", "string"),
    ('"reward": "scene_mach"', "/reward", "Did you mean 'scene_match'?"),
    ('"reward": {"name": "brightnes"}', "/reward/name", "Did you mean 'brightness'?"),
    ('"reward": ["brightness", "colourfulness"]', "/reward/1", "Did you mean 'colorfulness'?"),
    ('"reward": {"name": "brightness", "wieght": 1}', "/reward/wieght", "Did you mean 'weight'?"),
    ('"reward": {"name": "brightness", "params": {"x": 1}}', "/reward/params/x", "Unknown parameter"),
    ('"reward": {"name": "brightness", "weight": 0}', "/reward", "not be 0"),
    ('"reward": {"name": "brightness", "weight": NaN}', "/reward/weight", "finite"),
    ('"reward": {"name": "brightness", "weight": -Infinity}', "/reward/weight", "finite"),
    ('"reward": {"name": "brightness", "weight": 1e999}', "/reward/weight", "finite"),
    ('"reward": {"name": "brightness", "weight": "1"}', "/reward/weight", "number"),
    ('"reward": ["brightness", "brightness"]', "/reward", "twice"),
    ('"reward": []', "/reward", "empty"),
    ('"reward": [3]', "/reward/0", "object"),
    ('"reward": {}', "/reward/name", "required"),
    ('"held_out": ["scene"]', "/held_out/0", "Unknown reward"),
    ('"held_out": ["scene_match"]', "/held_out/0", "cannot be held out"),
    ('"held_out": "scene_exact"', "/held_out", "array"),
    ('"budget": {"nfe": 0}', "/budget/nfe", "greater than or equal to 1"),
    ('"budget": {"nfe": -5}', "/budget/nfe", "greater than or equal to 1"),
    ('"budget": {"nfe": 5001}', "/budget/nfe", "at most 5000"),
    ('"budget": {"nfe": NaN}', "/budget/nfe", "integer"),
    ('"budget": {"nfe": 200.5}', "/budget/nfe", "integer"),
    ('"budget": {"nfe": "200"}', "/budget/nfe", "integer"),
    ('"budget": {"nfe": true}', "/budget/nfe", "integer"),
    ('"budget": {"nfe": 9}, "search": {"strategy": "base"}', "/budget/nfe", "needs at least 10 NFE"),
    ('"budget": {"nfe": 11}, "search": {"strategy": "best_of_n"}, "num_images": 2', "/budget/nfe", "20 NFE"),
    ('"budget": {"seconds": -1}', "/budget/seconds", "greater than 0"),
    ('"budget": {"seconds": Infinity}', "/budget/seconds", "finite"),
    ('"budget": {"target_reward": NaN}', "/budget/target_reward", "finite"),
    ('"budget": {"patience": 0}', "/budget/patience", "greater than or equal to 1"),
    ('"budget": {"nef": 100}', "/budget/nef", "Did you mean 'nfe'?"),
    ('"budget": 200', "/budget", "object"),
    ('"search": {"strategy": "rfb"}', "/search/strategy", "Did you mean 'rbf'?"),
    ('"search": {"strategy": 3}', "/search/strategy", "Unknown strategy"),
    ('"search": "rbf"', "/search", "strategy"),
    ('"search": {"strategy": "rbf", "chians": 2}', "/search/chians", "Did you mean 'chains'?"),
    ('"search": {"strategy": "base", "chains": 2}', "/search/chains", "Unknown field"),
    ('"search": {"chains": 0}', "/search/chains", "greater than or equal to 1"),
    ('"search": {"mode": "rolover"}', "/search/mode", "Did you mean 'rollover'?"),
    ('"sampler": {"kernel": "euler"}', "/sampler/kernel", "Must be"),
    ('"sampler": {"steps": 0}', "/sampler/steps", "greater than or equal to 1"),
    ('"sampler": {"diffusion_scale": -1}', "/sampler/diffusion_scale", "greater than or equal to 0"),
    ('"sampler": {"eta": 2}', "/sampler/eta", "less than or equal to 1"),
    ('"sampler": {"reward_guidance": -1}', "/sampler/reward_guidance", "greater than or equal to 0"),
    ('"sampler": {"reward_guidence": 1}', "/sampler/reward_guidence", "Did you mean 'reward_guidance'?"),
    (
        '"sampler": {"reward_guidance": 1}, "reward": ["brightness", "compressibility"]',
        "/reward/1",
        "not differentiable",
    ),
    ('"num_images": 0', "/num_images", "greater than or equal to 1"),
    ('"num_images": 17', "/num_images", "less than or equal to 16"),
    ('"num_images": 2, "search": {"strategy": "base"}', "/num_images", "one picture"),
    ('"num_images": 2, "search": {"mode": "upstream"}', "/num_images", "one picture"),
    ('"sampler": {"steps": 1}', "/sampler/steps", "at least 2"),
    ('"search": {"mode": "upstream", "width": 2}', "/search/width", "Must be 1"),
    ('"search": {"mode": "upstream", "finish_steps": 4}', "/search/finish_steps", "Must be 0"),
    ('"search": {"mode": "upstream", "start": "top"}', "/search/start", "Must be 'best'"),
    (
        '"search": {"start": "top", "chains": 3, "initial_noises": 2}',
        "/search/initial_noises",
        "number of chains",
    ),
    ('"budget": {"nfe": 24}', "/budget/nfe", "needs at least 25 NFE"),
    ('"budget": {"nfe": 69}, "search": {"mode": "upstream"}', "/budget/nfe", "needs at least 70 NFE"),
    ('"width": -64', "/width", "greater than or equal to 1"),
    ('"height": 65', "/height", "Must be 64"),
    ('"width": 128', "/width", "Must be 64"),
    ('"guidance_scale": 3.5', "/guidance_scale", "null"),
    ('"seed": -1', "/seed", "greater than or equal to 0"),
    ('"seed": 9007199254740992', "/seed", "less than or equal to 9007199254740991"),
    ('"output_format": "gif"', "/output_format", "Must be"),
    ('"previews": true', "/previews", "Must be"),
    ('"metadata": {"a": 1}', "/metadata/a", "string"),
    (f'"metadata": {{"a": "{"x" * 513}"}}', "/metadata/a", "at most 512"),
    ('"metadata": []', "/metadata", "object"),
    ('"promt": "x"', "/promt", "Did you mean 'prompt'?"),
    ('"priority": "urgent"', "/priority", "Must be"),
    ('"priority": 1', "/priority", "Must be"),
    ('"baseline": 1', "/baseline", "boolean"),
    ('"search": {"plan_nfe": 46}', "/search/plan_nfe", "at least 47"),
    ('"search": {"plan_nfe": 201}', "/search/plan_nfe", "at most the budget of 200"),
    ('"webhook": {"url": "http://10.0.0.1"}', "/webhook/url", "inner address"),
    ('"a/b~c": 1', "/a~1b~0c", "Unknown field"),
    ('"nfe": 30', "/nfe", "Did you mean 'budget.nfe'?"),
    ('"strategy": "smc"', "/strategy", "Did you mean 'search.strategy'?"),
    ('"steps": 5', "/steps", "Did you mean 'sampler.steps'?"),
    ('"[key]": 1', "/[key]", "Unknown field '[key]'"),
    ('"budget": {"[key]": 1}', "/budget/[key]", "Unknown field '[key]'"),
    ('"reward": {"name": "brightness", "params": {"²": 1}}', "/reward/params/²", "Unknown parameter '²'"),
    ('"reward": {"name": "brightness", "params": {"a/b": 1}}', "/reward/params/a~1b", "Unknown parameter"),
    ('"reward": [{"name": "brightness", "params": {"0": 1}}]', "/reward/0/params/0", "Unknown parameter"),
]


@pytest.mark.parametrize(("posted", "pointer", "words"), INVALID)
def test_an_invalid_field_is_pointed_at(
    client: httpx.Client, redis: Redis, posted: str, pointer: str, words: str
) -> None:
    prompt = "" if posted.startswith('"prompt"') else '"prompt": "x", '
    problem = refused(post(client, f"{{{prompt}{posted}}}"), 422, "invalid_request")
    [error] = problem["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]
    assert redis.zcard("rollover:jobs") == 0


def test_every_problem_is_named_at_once(client: httpx.Client) -> None:
    body = {"prompt": "", "budget": {"nfe": 0}, "search": {"strategy": "x"}, "more": 1}
    problem = refused(post(client, json.dumps(body)), 422, "invalid_request")
    assert {e["pointer"] for e in problem["errors"]} == {
        "/prompt",
        "/budget/nfe",
        "/search/strategy",
        "/more",
    }


@pytest.mark.parametrize(
    ("posted", "allowed"),
    [
        ('"search": {"strategy": "x"}', sorted(STRATEGIES)),
        ('"search": {"strategy": "base"}, "sampler": {"kernel": "ddim", "diffusion_scale": 1.0}', ["3.0"]),
        ('"search": {"strategy": "base"}, "sampler": {"diffusion": "flow_grpo"}', ["square"]),
        (
            '"search": {"strategy": "zero_order"}, "sampler": {"kernel": "ddim", "diffusion": "sin"}',
            ["square"],
        ),
        ('"search": {"strategy": "sop"}, "sampler": {"grid": "cubic"}', ["quadratic", "linear"]),
        ('"search": {"strategy": "evolution"}, "sampler": {"diffusion_scale": 0.5}', ["3.0"]),
        ('"sampler": {"eta": 0.5}', ["1.0"]),
        ('"sampler": {"kernel": "ddim", "diffusion": "sin"}', ["square"]),
        ('"search": {"strategy": "best_of_n"}, "sampler": {"interpolant": "v"}', ["linear", "vp"]),
        ('"search": {"strategy": "rbf", "mode": "x"}', ["upstream", "rollover"]),
        ('"search": {"strategy": "rbf", "mode": "upstream", "start": "top"}', ["best"]),
        ('"search": {"strategy": "rbf", "mode": "upstream", "width": 2}', ["1"]),
        ('"search": {"strategy": "rbf", "mode": "upstream", "finish_steps": 2}', ["0"]),
    ],
)
def test_what_is_allowed_is_listed(client: httpx.Client, posted: str, allowed: list[str]) -> None:
    problem = refused(post(client, f'{{"prompt": "x", {posted}}}'), 422, "invalid_request")
    assert problem["errors"][0]["allowed"] == allowed


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/quotes", "/v1/images/generations"])
def test_a_setting_that_is_not_heeded_is_refused_with_what_to_do(client: httpx.Client, path: str) -> None:
    def told(**body: object) -> str:
        problem = refused(client.post(path, json={"prompt": "x", **body}), 422, "invalid_request")
        return problem["errors"][0]["detail"]

    assert told(search={"strategy": "zero_order"}, sampler={"diffusion": "sin"}) == (
        "Must be 'square' with kernel 'ode', which does not read it. "
        "Leave it out, or name kernel 'euler_maruyama'."
    )
    assert told(sampler={"eta": 0.5}) == (
        "Must be 1.0 with kernel 'euler_maruyama', which does not read it. "
        "Leave it out, or name kernel 'ddim'."
    )


def test_a_missing_prompt(client: httpx.Client) -> None:
    problem = refused(post(client, "{}"), 422, "invalid_request")
    assert problem["errors"] == [{"pointer": "/prompt", "detail": "Is required."}]


@pytest.mark.parametrize("body", ["[]", "null", "3", '"x"', "true"])
def test_a_body_that_is_no_object(client: httpx.Client, body: str) -> None:
    problem = refused(post(client, body), 422, "invalid_request")
    assert problem["errors"] == [{"pointer": "", "detail": "Must be a JSON object."}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "x"',
        b"{'prompt': 'x'}",
        b'{"prompt": "\xff\xfe"}',
        b'\xff\xfe{\x00"\x00p\x00',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "x",}',
        b'{"prompt": "x"} {}',
        b"[" * 30_000,
        b'{"seed": ' + b"9" * 6000 + b"}",
    ],
)
def test_malformed_json(client: httpx.Client, body: bytes) -> None:
    refused(post(client, body), 400, "malformed_json")


@pytest.mark.parametrize(
    "body", ['{"prompt": "x", "prompt": "y"}', '{"prompt": "x", "budget": {"nfe": 50, "nfe": 500}}']
)
def test_a_name_that_comes_twice(client: httpx.Client, body: str) -> None:
    problem = refused(post(client, body), 400, "malformed_json")
    assert "twice" in problem["detail"]


def test_a_body_of_many_names_is_read_at_once(client: httpx.Client) -> None:
    many = ", ".join(f'"{number}": 0' for number in range(4000))
    # Of this process, which is the server's too: what others take of the machine does not count.
    began = time.process_time()
    refused(post(client, f'{{"prompt": "x", {many}}}'), 422, "invalid_request")
    assert time.process_time() - began < 2


def test_a_prompt_of_100_kb(client: httpx.Client, redis: Redis) -> None:
    problem = refused(post(client, json.dumps({"prompt": "x" * 100_000})), 413, "body_too_large")
    assert "65536" in problem["detail"]
    assert redis.zcard("rollover:jobs") == 0


def test_a_body_too_large_that_does_not_say_its_length(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    headers = {"Content-Type": "application/json"}
    refused(client.post("/v1/generations", content=chunks(), headers=headers), 413, "body_too_large")


def test_a_body_as_large_as_allowed(client: httpx.Client) -> None:
    body = b'{"prompt": "x"}'.ljust(65536)
    assert post(client, body).status_code == 202
    refused(post(client, body + b" "), 413, "body_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset*=utf-8''utf-8; charset*0=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_another_media_type(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/v1/generations", content=b'{"prompt": "x"}', headers=headers)
    refused(response, 415, "unsupported_media_type")


def test_a_charset_that_says_what_is_so(client: httpx.Client) -> None:
    body = '{"prompt": "ein Kreis für dich"}'.encode()
    response = post(client, body, **{"Content-Type": "application/json; charset=UTF-8"})
    assert response.json()["request"]["prompt"] == "ein Kreis für dich"


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "\x7f"])
def test_an_idempotency_key_that_cannot_be_one(client: httpx.Client, key: str) -> None:
    problem = refused(post(client, '{"prompt": "x"}', **{"Idempotency-Key": key}), 422, "invalid_request")
    assert problem["errors"][0]["parameter"].lower() == "idempotency-key"


@pytest.mark.parametrize("generation", [UNKNOWN_ID, "gen_x", "x", "%00", "..%2f..", "gen_" + "u" * 26, "é"])
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/trace"),
        ("GET", "/images/0"),
        ("GET", "/previews/1"),
    ],
)
def test_an_unknown_id(client: httpx.Client, method: str, rest: str, generation: str) -> None:
    response = client.request(method, f"/v1/generations/{generation}{rest}")
    assert response.json()["code"] in ("generation_not_found", "not_found")
    refused(response, 404, response.json()["code"])


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/generations/", "/v1/generations/x/y/z", "/v2/models"])
def test_an_unknown_route(client: httpx.Client, path: str) -> None:
    refused(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/generations", "GET, POST"),
        ("PATCH", f"/v1/generations/{UNKNOWN_ID}", "DELETE, GET"),
        ("GET", f"/v1/generations/{UNKNOWN_ID}/cancel", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/docs", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/studio/studio.js", "GET, HEAD"),
    ],
)
def test_another_method(client: httpx.Client, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/generations?limit=0", "limit"),
        ("/v1/generations?limit=101", "limit"),
        ("/v1/generations?limit=x", "limit"),
        ("/v1/generations?status=done", "status"),
        ("/v1/generations?cursor=x", "cursor"),
        (f"/v1/generations/{UNKNOWN_ID}/events?after=-1", "after"),
        (f"/v1/generations/{UNKNOWN_ID}/trace?format=xml", "format"),
        (f"/v1/generations/{UNKNOWN_ID}/images/-1", "index"),
        (f"/v1/generations/{UNKNOWN_ID}/images/{'9' * 5000}", "index"),
        (f"/v1/generations/{UNKNOWN_ID}/previews/0", "seq"),
    ],
)
def test_a_parameter_that_cannot_be_used(client: httpx.Client, path: str, parameter: str) -> None:
    problem = refused(client.get(path), 422, "invalid_request")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]


@pytest.mark.parametrize(
    ("method", "path", "name", "allowed"),
    [
        ("GET", "/v1/generations?limits=3", "limits", ["cursor", "limit", "status"]),
        ("GET", f"/v1/generations/{UNKNOWN_ID}/trace?fromat=csv", "fromat", ["format"]),
        ("GET", "/v1/models?x=1", "x", []),
        ("POST", f"/v1/generations/{UNKNOWN_ID}/cancel?now=1", "now", []),
    ],
)
def test_a_parameter_that_no_one_knows(
    client: httpx.Client, method: str, path: str, name: str, allowed: list[str]
) -> None:
    problem = refused(client.request(method, path), 422, "invalid_request")
    [error] = problem["errors"]
    assert (error["parameter"], error["allowed"]) == (name, allowed)


@pytest.mark.parametrize("rest", ["images/0", "baseline", "previews/1"])
def test_a_parameter_that_no_one_knows_in_a_head(client: httpx.Client, rest: str) -> None:
    answer = client.head(f"/v1/generations/{UNKNOWN_ID}/{rest}?x=1")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_of_a_body_of_wrong_names_the_first_are_told(client: httpx.Client) -> None:
    body = json.dumps({"prompt": "a", **{f"x{number}": 1 for number in range(5000)}})
    assert len(refused(post(client, body), 422, "invalid_request")["errors"]) == MOST_PROBLEMS
    answer = client.post("/v1/images/generations", json={**json.loads(body), "n": 0})
    errors = refused(answer, 422, "invalid_request")["errors"]
    assert [error["pointer"] for error in errors] == [f"/x{number}" for number in range(MOST_PROBLEMS)]
    query = "&".join(f"x{number}=1" for number in range(5000))
    problem = refused(client.get(f"/v1/models?{query}"), 422, "invalid_request")
    assert len(problem["errors"]) == MOST_PROBLEMS


def test_a_last_event_id_that_is_no_number(client: httpx.Client) -> None:
    response = client.get(f"/v1/generations/{UNKNOWN_ID}/events", headers={"Last-Event-ID": "x"})
    problem = refused(response, 422, "invalid_request")
    assert problem["errors"][0]["parameter"].lower() == "last-event-id"
