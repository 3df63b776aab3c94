"""The OpenAPI document: as true of this server as a schema can be."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from contracts.catalogue import ModelFacts, NoParams, SizeFacts
from contracts.errors import Problem
from contracts.events import EVENT
from contracts.extension import ExtensionRequest
from contracts.openai import OURS, ImageRequest, OpenAIImageRequest
from contracts.requests import GenerationRequest, ResolvedRequest
from contracts.resolution import usable_rewards
from contracts.rewards import REWARD_PARAMS
from contracts.search import DEFAULT_STRATEGY, STRATEGY_PARAMS, RbfParams
from contracts.settings import Settings

Schema = dict[str, Any]
SCHEMA_REF = "#/components/schemas/{model}"
TERM = "RewardTermRequest"
MAX_TERMS = 8
NOT_BLANK = r"[^\s\x1c-\x1f\x85]"
"""Python counts some separators as blanks that the regular expressions of JSON schema do not."""
UPSTREAM = "RbfUpstreamParams"


def openapi_of(app: FastAPI, described: Callable[[], Schema], settings: Settings) -> Schema:
    """Return the document, with the models that routes read and write by hand added to it once."""
    if app.openapi_schema is None:
        schemas = described().setdefault("components", {}).setdefault("schemas", {})
        _, definitions = models_json_schema(
            [
                (GenerationRequest, "validation"),
                (ExtensionRequest, "validation"),
                (OpenAIImageRequest, "validation"),
                (Problem, "serialization"),
            ],
            ref_template=SCHEMA_REF,
        )
        events = EVENT.json_schema(ref_template=SCHEMA_REF)
        schemas |= definitions["$defs"] | events.pop("$defs") | {"Event": events}
        narrow(schemas, settings)
        for methods in described()["paths"].values():
            for operation in methods.values():
                # FastAPI's own is the name of the function.
                operation["summary"] = operation["description"].partition("\n")[0].rstrip(".")
                for parameter in operation.get("parameters", []):
                    parameter["schema"] = without_null(parameter["schema"])
    return described()


def without_null(schema: Schema) -> Schema:
    """Describe a parameter, which is left out where a body's field would be null."""
    forms = [form for form in schema.get("anyOf", []) if form != {"type": "null"}]
    if len(forms) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **forms[0]}


def narrow(schemas: Schema, settings: Settings) -> None:
    """Say of requests what this server's models and settings allow."""
    served = list(settings.served.values())
    rewards = sorted({name for model in served for name in usable_rewards(model.id, settings.caps)})
    schemas[TERM] = term(schemas, rewards)
    for name in (GenerationRequest.__name__, OpenAIImageRequest.__name__):
        fields = schemas[name]["properties"]
        fields["prompt"] |= {"maxLength": settings.max_prompt_chars, "pattern": NOT_BLANK}
        fields["model"] |= {"anyOf": nullable({"type": "string", "enum": list(settings.models)})}
        fields["reward"] |= {"anyOf": nullable(*reward_forms(rewards))}
        held_out = {"type": "array", "items": {"type": "string", "enum": rewards}, "maxItems": MAX_TERMS}
        fields["held_out"] |= {"anyOf": nullable(held_out)}
        fields["budget"] = capped(settings.max_nfe)
        fields["guidance_scale"] |= {"anyOf": nullable(*guidance_forms(served))}
        fields["image"] |= {"anyOf": nullable(*image_forms(served))}
        fields["width"] |= {"anyOf": nullable(*(size(model.width) for model in served))}
        fields["height"] |= {"anyOf": nullable(*(size(model.height) for model in served))}
    schemas[ExtensionRequest.__name__]["properties"]["budget"] |= capped(settings.max_nfe)
    keep_only(schemas[OpenAIImageRequest.__name__], {*OURS, *ImageRequest.model_fields})
    for name, params in STRATEGY_PARAMS.items():
        if name != DEFAULT_STRATEGY:
            schemas[params.__name__]["required"] = ["strategy"]  # or it would be the default's
    tell_modes_apart(schemas)
    schemas["Webhook"]["properties"]["url"] |= {"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$"}
    schemas["Webhook"]["properties"]["events"] |= {"uniqueItems": True}


def tell_modes_apart(schemas: Schema) -> None:
    """Describe mode `upstream` of rbf apart: it takes fewer values, and only where it is named."""
    both = schemas[RbfParams.__name__]
    fields = {name: dict(field) for name, field in both["properties"].items()}
    fields["mode"] = {"type": "string", "const": "upstream"}
    fields["width"] |= {"const": 1}
    fields["start"] |= {"const": "best"}
    fields["finish_steps"] = {"enum": [0, None]}
    schemas[UPSTREAM] = {**both, "title": UPSTREAM, "properties": fields, "required": ["mode"]}
    both["properties"]["mode"] |= {"enum": ["rollover"]}
    for name in (GenerationRequest.__name__, OpenAIImageRequest.__name__, ResolvedRequest.__name__):
        schemas[name]["properties"]["search"]["oneOf"].append({"$ref": SCHEMA_REF.format(model=UPSTREAM)})


def nullable(*forms: Schema) -> list[Schema]:
    """List the forms of a field, null among them."""
    return [*forms, {"type": "null"}]


def term(schemas: Schema, rewards: list[str]) -> Schema:
    """Describe a term that may be posted; one that is stored may name what is no longer served."""
    bare = [name for name in rewards if REWARD_PARAMS[name] is NoParams]
    none = {"type": "object", "maxProperties": 0, "description": "these rewards take none"}
    forms = [form(schemas["RewardTerm"], bare, none)] if bare else []
    others = [name for name in rewards if name not in bare]
    forms += [form(schemas["RewardTerm"], [name], params_of(name, schemas)) for name in others]
    return {"title": TERM, "oneOf": forms}


def form(stored: Schema, names: list[str], params: Schema) -> Schema:
    """Describe a term that names one of these rewards."""
    given = {name: dict(field) for name, field in stored["properties"].items()}
    given["name"] |= {"enum": names}
    return {**stored, "title": f"{TERM}: {', '.join(names)}", "properties": given | {"params": params}}


def params_of(name: str, schemas: Schema) -> Schema:
    """Describe a reward's parameters; what they refer to joins the document's schemas, under its name."""
    params = REWARD_PARAMS[name].model_json_schema(ref_template=SCHEMA_REF.format(model=f"{name}.{{model}}"))
    schemas.update({f"{name}.{model}": schema for model, schema in params.pop("$defs", {}).items()})
    return params


def reward_forms(rewards: list[str]) -> list[Schema]:
    """List what `reward` may be: a name, a term, or a list of either."""
    one = [{"type": "string", "enum": rewards}, {"$ref": SCHEMA_REF.format(model=TERM)}]
    return [*one, {"type": "array", "items": {"anyOf": one}, "minItems": 1, "maxItems": MAX_TERMS}]


def capped(nfe: int) -> Schema:
    """Describe a budget of at most so many NFE."""
    budget = {"$ref": SCHEMA_REF.format(model="Budget")}
    return {"allOf": [budget, {"properties": {"nfe": {"type": "integer", "maximum": nfe}}}]}


def guidance_forms(models: list[ModelFacts]) -> list[Schema]:
    """List the guidance scales that some model takes."""
    return [
        {"type": "number", "minimum": facts.minimum, "maximum": facts.maximum}
        for facts in (model.guidance for model in models)
        if facts
    ]


def image_forms(models: list[ModelFacts]) -> list[Schema]:
    """List what an image may be, where some model takes one."""
    taken = any(model.image != "none" for model in models)
    return [{"type": "string", "description": "the file in base64, or a data URL"}] if taken else []


def size(facts: SizeFacts) -> Schema:
    """Describe a width or height in pixels."""
    if facts.minimum == facts.maximum:
        return {"type": "integer", "const": facts.minimum}
    limits = {"minimum": facts.minimum, "maximum": facts.maximum, "multipleOf": facts.multiple}
    return {"type": "integer", **limits}


def keep_only(schema: Schema, names: set[str]) -> None:
    """Forget the other fields of a body."""
    schema["properties"] = {name: field for name, field in schema["properties"].items() if name in names}
