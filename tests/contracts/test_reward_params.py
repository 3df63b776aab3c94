"""Parameters of rewards: filled in, checked with a pointer to what was posted, and told to clients."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from app.main import create_app
from contracts.errors import InvalidRequestError
from contracts.plugins import RewardPlugin
from contracts.resolution import accept
from contracts.search import Strict
from contracts.settings import Settings

SERVER = Settings(redis_url="redis://nowhere", reward_paths={"grounded_count": Path("/weights")})


def resolved(reward: object) -> list[dict[str, Any]]:
    body = {"prompt": "two dogs", "reward": reward}
    return [term.model_dump() for term in accept(body, caps=SERVER.caps).reward]


@pytest.mark.parametrize(
    ("posted", "stored"),
    [
        ({}, {"counts": None}),
        ({"counts": None}, {"counts": None}),
        ({"counts": {"dog": 2, "Red car": 0}}, {"counts": {"dog": 2, "Red car": 0}}),
    ],
)
def test_defaults_are_filled_in_and_stored(posted: object, stored: object) -> None:
    [term] = resolved({"name": "grounded_count", "params": posted})
    assert term == {"name": "grounded_count", "weight": 1.0, "params": stored}
    assert resolved([term]) == [term]
    assert resolved("brightness")[0]["params"] == {}


@pytest.mark.parametrize(
    ("params", "pointer", "detail"),
    [
        ({"count": {"dog": 2}}, "/count", "Unknown parameter 'count'. Did you mean 'counts'?"),
        ({"counts": {}}, "/counts", "Must not be empty"),
        ({"counts": {"dog": -1}}, "/counts/dog", "greater than or equal to 0"),
        ({"counts": {"dog": 100}}, "/counts/dog", "less than or equal to 99"),
        ({"counts": {"dog": "2"}}, "/counts/dog", "valid integer"),
        ({"counts": {"dog": True}}, "/counts/dog", "valid integer"),
        ({"counts": {"dog. cat": 1}}, "/counts/dog. cat", "match pattern"),
        ({"counts": {"": 1}}, "/counts/", "match pattern"),
        ({"counts": {"x" * 61: 1}}, f"/counts/{'x' * 61}", "at most 60 characters"),
        ({"counts": {f"x{i}": 1 for i in range(17)}}, "/counts", "at most 16 items"),
        ({"counts": ["dog"]}, "/counts", "Must be a JSON object"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_a_wrong_parameter_is_pointed_at(params: object, pointer: str, detail: str, *, listed: bool) -> None:
    term = {"name": "grounded_count", "params": params}
    with pytest.raises(InvalidRequestError) as refused:
        resolved(["brightness", term] if listed else term)
    [problem] = refused.value.problems
    assert problem.pointer == ("/reward/1/params" if listed else "/reward/params") + pointer
    assert detail in problem.detail


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """Of a term of a submission, as the OpenAPI document has it."""
    document = create_app(SERVER).openapi()
    return Draft202012Validator({"$ref": "#/components/schemas/RewardTermRequest", **document})


@pytest.mark.parametrize(
    ("term", "valid"),
    [
        ({"name": "brightness"}, True),
        ({"name": "brightness", "params": {}}, True),
        ({"name": "brightness", "params": {"counts": None}}, False),
        ({"name": "grounded_count"}, True),
        ({"name": "grounded_count", "params": {"counts": {"dog": 2}}}, True),
        ({"name": "grounded_count", "params": {"counts": {"dog": -2}}}, False),
        ({"name": "grounded_count", "params": {"counts": {"dog.": 2}}}, False),
        ({"name": "grounded_count", "params": {"count": {"dog": 2}}}, False),
        ({"name": "pickscore"}, False),
        ({"params": {}}, False),
    ],
)
def test_openapi_says_what_each_reward_takes(
    schema: Draft202012Validator, term: dict[str, object], *, valid: bool
) -> None:
    assert schema.is_valid(term) == valid
    if valid:
        assert resolved(term)


def test_a_packages_parameters_have_defaults() -> None:
    class Params(Strict):
        tone: float
        depth: int = 3

    with pytest.raises(ValueError, match="tone must have a default"):
        RewardPlugin(title="x", factory="a.b:C", licence="MIT", params=Params)
