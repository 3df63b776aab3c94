"""From posted JSON to a request model, with problems a client can act on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contracts.errors import MOST_PROBLEMS, FieldProblem, InvalidRequestError
from contracts.names import did_you_mean
from contracts.requests import Budget, GenerationRequest, RewardTerm
from contracts.rewards import REWARD_PARAMS, REWARDS
from contracts.search import STRATEGY_PARAMS, RbfParams, SamplerRequest, strategy_of
from contracts.webhooks import Webhook


def parse(payload: object) -> GenerationRequest:
    """Check the shape of a submission.

    Raises:
        InvalidRequestError: with one problem for each field that cannot be used.
    """
    try:
        return GenerationRequest.model_validate(payload)
    except ValidationError as error:
        errors = [e for e in told(error) if not follows_from_another(e)]
        raise InvalidRequestError([problem_of(e, payload) for e in errors]) from None


def told(error: ValidationError) -> list[ErrorDetails]:
    """The errors that an answer lists: the first `MOST_PROBLEMS`."""
    return error.errors(include_url=False)[:MOST_PROBLEMS]


def follows_from_another(error: ErrorDetails) -> bool:
    """Whether an array is called too short only because its items were refused."""
    return error["type"] == "too_short" and bool(error["input"])


def problem_of(
    error: ErrorDetails, payload: object, root: type[BaseModel] = GenerationRequest
) -> FieldProblem:
    """Turn one pydantic error into a problem with a JSON Pointer into what was really posted.

    `root` is the model of the whole body.
    """
    keys = posted_path(error["loc"], payload)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_fields(keys[:-1], payload, root)
        name = str(keys[-1])
        hint = belongs_to(name, known) if len(keys) == 1 else ""
        detail = f"Unknown field '{name[:100]}'.{hint or did_you_mean(name, known)}"
        return FieldProblem(pointer=pointer(keys), detail=detail, allowed=sorted(known))
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        detail = f"Unknown strategy '{tag[:100]}'.{did_you_mean(tag, STRATEGY_PARAMS)}"
        return FieldProblem(
            pointer=pointer([*keys, "strategy"]), detail=detail, allowed=sorted(STRATEGY_PARAMS)
        )
    if kind == "literal_error":
        return unknown_choice(keys, error)
    return FieldProblem(pointer=pointer(keys), detail=PLAIN.get(kind, f"{error['msg']}."))


def belongs_to(name: str, known: Collection[str]) -> str:
    """Return ` Did you mean 'budget.nfe'?` for a field of an object in a body, or an empty string."""
    for place, model in SECTIONS.items():
        if place in known and name in model.model_fields:
            return f" Did you mean '{place}.{name}'?"
    return ""


SECTIONS: dict[str, type[BaseModel]] = {"budget": Budget, "search": RbfParams, "sampler": SamplerRequest}
"""What is often looked for a level too high."""
PLAIN = {
    "missing": "Is required.",
    "model_type": "Must be a JSON object.",
    "dict_type": "Must be a JSON object.",
    "tuple_type": "Must be an array.",
    "too_short": "Must not be empty.",
    "union_tag_not_found": "Must be a JSON object whose `strategy` names the strategy.",
}
"""Messages in the words of JSON where pydantic's are in those of Python."""


def unknown_choice(keys: Sequence[str | int], error: ErrorDetails) -> FieldProblem:
    """Describe a value outside a closed set."""
    expected = str(error.get("ctx", {}).get("expected", ""))
    allowed = [name.strip("' ") for name in expected.replace(" or ", ", ").split(", ")]
    value = error["input"]
    hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return FieldProblem(pointer=pointer(keys), detail=f"Must be {expected}.{hint}", allowed=allowed)


def posted_path(location: Iterable[str | int], payload: object) -> list[str | int]:
    """Follow a location through the posted JSON, dropping the steps that only the parsed form has.

    These are the union's tag, the index of a reward posted without its list, the `name` of a bare name,
    and pydantic's mark for a key of `metadata`.
    """
    keys: list[str | int] = []
    node: object = payload
    for step in location:
        if isinstance(node, str) or (step == "[key]" and len(keys) == 2 and keys[0] == "metadata"):
            break
        if isinstance(step, int) and not is_array(node):
            continue
        if keys == ["search"] and step in STRATEGY_PARAMS and step not in cast("Mapping[str, object]", node):
            continue
        keys.append(step)
        node = child(node, step)
    return keys


def is_array(node: object) -> bool:
    """Whether a piece of JSON is an array."""
    return isinstance(node, list)


def child(node: object, step: str | int) -> object:
    """Return what a JSON object or array holds at a step, or None."""
    if isinstance(node, dict):
        return cast("Mapping[str | int, object]", node).get(step)
    if isinstance(node, list) and isinstance(step, int):
        items = cast("list[object]", node)
        return items[step] if step < len(items) else None
    return None


def known_fields(keys: Sequence[str | int], payload: object, root: type[BaseModel]) -> set[str]:
    """List the fields allowed in the object at a path of the posted JSON."""
    return set(section(keys, payload, root).model_fields)


def section(keys: Sequence[str | int], payload: object, root: type[BaseModel]) -> type[BaseModel]:
    """Find the model that describes the object at a path of the posted JSON."""
    if not keys:
        return root
    if keys[0] == "search":
        search = cast("Mapping[str, Any]", payload)["search"]
        return STRATEGY_PARAMS[str(strategy_of(search))]
    sections: dict[str | int, type[BaseModel]] = {
        "budget": Budget,
        "sampler": SamplerRequest,
        "reward": RewardTerm,
        "webhook": Webhook,
    }
    return sections[keys[0]]


def pointer(keys: Iterable[str | int]) -> str:
    """Write a JSON Pointer (RFC 6901); the whole document is the empty string."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def steps_of(text: str) -> list[str | int]:
    """Read a JSON Pointer into a resolved submission, where items of `reward` and `held_out` have numbers."""
    steps: list[str | int] = [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]
    if len(steps) > 1 and steps[0] in ("reward", "held_out"):
        steps[1] = int(steps[1])
    return steps


def reward_params_problems(terms: Sequence[RewardTerm], at: Sequence[str]) -> list[FieldProblem]:
    """Check each known reward's parameters against its own model; `at[i]` is the pointer to term i."""
    problems: list[FieldProblem] = []
    for term, place in zip(terms, at, strict=True):
        if term.name not in REWARDS:
            continue
        model = REWARD_PARAMS[term.name]
        try:
            model.model_validate(term.params)
        except ValidationError as error:
            problems += [reward_param_problem(e, model, place) for e in told(error)]
    return problems


def reward_param_problem(error: ErrorDetails, model: type[BaseModel], place: str) -> FieldProblem:
    """Describe one wrong parameter of a reward."""
    steps = [step for step in error["loc"] if step != "[key]"]  # pydantic's mark for the key of an object
    where = f"{place}/params{pointer(steps)}"
    if error["type"] == "literal_error":
        return unknown_choice([*steps_of(f"{place}/params"), *steps], error)
    if error["type"] != "extra_forbidden":
        return FieldProblem(pointer=where, detail=PLAIN.get(error["type"], f"{error['msg']}."))
    known = sorted(model.model_fields)
    name = str(error["loc"][-1])
    detail = f"Unknown parameter '{name[:100]}'.{did_you_mean(name, known)}"
    return FieldProblem(pointer=where, detail=detail, allowed=known)
