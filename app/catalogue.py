"""The catalogue as clients see it: facts, JSON schemas of parameters, and what is live now."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from contracts.beats import WorkerBeat
from contracts.catalogue import STRATEGIES, ModelFacts, RewardFacts, SizeFacts, StrategyFacts
from contracts.rewards import REWARD_PARAMS, REWARDS
from contracts.search import DEFAULT_STRATEGY, OWN_WAY, STRATEGY_PARAMS, SamplerRequest

JsonSchema = dict[str, Any]


class ModelEntry(ModelFacts):
    """A model; `available` where a worker has it loaded."""

    default: bool
    available: bool
    workers: int
    params: JsonSchema


class RewardEntry(RewardFacts):
    """A reward and the schema of its `params`; `available` where the server has what it needs."""

    available: bool
    params: JsonSchema


class StrategyEntry(StrategyFacts):
    """A strategy and the schema of its parameters."""

    default: bool
    sampler: dict[str, str] = Field(
        description="settings of the sampler that a submission which leaves them open has with it"
    )
    params: JsonSchema


class ModelList(BaseModel):
    """The models of this server."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class RewardList(BaseModel):
    """The rewards of this server."""

    object: Literal["list"] = "list"
    data: list[RewardEntry]


class StrategyList(BaseModel):
    """The strategies of this server, and the schema of the sampler they share."""

    object: Literal["list"] = "list"
    data: list[StrategyEntry]
    sampler: JsonSchema


def models(served: Mapping[str, ModelFacts], workers: Sequence[WorkerBeat]) -> ModelList:
    """List the models served; the first is the default."""
    first = next(iter(served))
    return ModelList(data=[model_entry(facts, name == first, workers) for name, facts in served.items()])


def model_entry(facts: ModelFacts, default: bool, workers: Sequence[WorkerBeat]) -> ModelEntry:  # noqa: FBT001 (a field)
    """Describe one model."""
    live = [worker for worker in workers if worker.model == facts.id and worker.state.serving]
    return ModelEntry(
        **facts.model_dump(),
        default=default,
        available=bool(live),
        workers=len(live),
        params=model_schema(facts),
    )


def model_schema(facts: ModelFacts) -> JsonSchema:
    """Write the schema of the request fields whose limits the model sets."""
    guidance: JsonSchema = {"type": "null"}
    if facts.guidance:
        limits = {"minimum": facts.guidance.minimum, "maximum": facts.guidance.maximum}
        guidance = {"type": "number", **limits, "default": facts.guidance.default}
    return {
        "type": "object",
        "properties": {
            "width": size_schema(facts.width),
            "height": size_schema(facts.height),
            "guidance_scale": guidance,
            "image": {"type": "null"} if facts.image == "none" else {"type": "string"},
        },
        "required": ["image"] if facts.image == "required" else [],
    }


def size_schema(size: SizeFacts) -> JsonSchema:
    """Write the schema of a width or height in pixels."""
    return {
        "type": "integer",
        "minimum": size.minimum,
        "maximum": size.maximum,
        "multipleOf": size.multiple,
        "default": size.default,
    }


def rewards(served: Iterable[str], set_up: Container[str]) -> RewardList:
    """List the rewards that apply to some model served; `set_up` have the setting that they need."""
    fitting = [f for f in REWARDS.values() if f.models is None or set(f.models) & set(served)]
    return RewardList(data=[reward_entry(f, f.setting is None or f.name in set_up) for f in fitting])


def reward_entry(facts: RewardFacts, available: bool) -> RewardEntry:  # noqa: FBT001 (a field)
    """Describe one reward."""
    params = REWARD_PARAMS[facts.name].model_json_schema()
    return RewardEntry(**facts.model_dump(), available=available, params=params)


def strategies() -> StrategyList:
    """List the strategies."""
    entries = [
        StrategyEntry(
            **facts.model_dump(),
            default=name == DEFAULT_STRATEGY,
            sampler=dict(OWN_WAY) if STRATEGY_PARAMS[name].own_way else {},
            params=STRATEGY_PARAMS[name].model_json_schema(),
        )
        for name, facts in STRATEGIES.items()
    ]
    return StrategyList(data=entries, sampler=SamplerRequest.model_json_schema())
