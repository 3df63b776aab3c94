"""A submission as posted, and the same with every default filled in."""

from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import BeforeValidator, Field, JsonValue

from contracts.destinations import Network
from contracts.search import RbfParams, Sampler, SamplerRequest, SearchParams, Strict
from contracts.webhooks import Webhook

MAX_SEED = 2**53 - 1
"""Largest seed: the largest integer that every JSON reader gives back unchanged."""

MAX_IMAGES = 16
LEAST_EDGE = 64
"""Fewest pixels a side of an image that a prompt is about: some models take no smaller one."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Previews = Literal["levels", "none"]
OutputFormat = Literal["png", "jpeg", "webp"]
Priority = Literal["low", "normal", "high"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""From the lowest to the highest."""


class RewardTerm(Strict):
    """One reward of a weighted sum."""

    name: str
    weight: Finite = 1.0
    params: dict[str, JsonValue] = Field(default_factory=dict)


def as_terms(value: object) -> object:
    """Turn a bare name or a single term into the list that is stored."""
    if isinstance(value, str | dict):
        value = [cast("object", value)]
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [{"name": item} if isinstance(item, str) else item for item in items]
    return value


Rewards = Annotated[
    tuple[RewardTerm, ...],
    Field(min_length=1, max_length=8, strict=False),
    BeforeValidator(as_terms, json_schema_input_type=str | RewardTerm | list[str | RewardTerm]),
]


class Budget(Strict):
    """How much a search may spend; the first limit reached ends it and the best so far is the result."""

    nfe: int = Field(
        default=200,
        ge=1,
        description="model evaluations, a hard cap; by default as many as `seconds` pay for, where these are "
        "named and a quote tells the pace",
    )
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="search time")
    target_reward: Finite | None = Field(default=None, description="stop once the best reward reaches it")
    patience: int | None = Field(default=None, ge=1, description="stop after so many NFE without gain")


class InputImage(Strict):
    """The image that a prompt is about, as facts: its pixels lie in the artifact store."""

    width: int = Field(description="pixels, of the image as it is meant to be seen")
    height: int
    bytes: int = Field(description="size of the file as it was posted")
    sha256: str = Field(description="of the file's bytes as posted, hexadecimal")


class GenerationRequest(Strict):
    """The body of `POST /v1/generations`; only `prompt` is required."""

    prompt: str = Field(min_length=1)
    image: str | None = Field(
        default=None, description="PNG or JPEG file that the prompt is about, in base64 or as a data URL"
    )
    model: str | None = Field(default=None, description="default: the server's first model")
    reward: Rewards | None = Field(
        default=None, description="a name, one term, or a list of either; default: the model's"
    )
    held_out: Annotated[tuple[str, ...], Field(max_length=8, strict=False)] | None = Field(
        default=None, description="rewards computed on the final images only; default: the model's"
    )
    budget: Budget = Field(default_factory=Budget)
    search: SearchParams = Field(default_factory=RbfParams)
    sampler: SamplerRequest = Field(default_factory=SamplerRequest)
    num_images: int = Field(default=1, ge=1, le=MAX_IMAGES)
    width: int | None = Field(default=None, ge=1, description="pixels; default: the model's")
    height: int | None = Field(default=None, ge=1, description="pixels; default: the model's")
    guidance_scale: Finite | None = Field(default=None, description="default: the model's")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="default: drawn at submission")
    output_format: OutputFormat = "png"
    previews: Previews = "levels"
    priority: Priority | None = Field(
        default=None, description="whose turn comes sooner; default: normal, or low where the key has no more"
    )
    baseline: bool = Field(default=False, description="also run best-of-n at the NFE that the search spent")
    webhook: Webhook | None = Field(default=None, description="whom to tell when the job has ended")
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)


class ResolvedRequest(Strict):
    """A submission that means the same for ever: nothing in it depends on a server's defaults.

    `width` and `height` in pixels; `guidance_scale` is null where the model takes none.
    """

    prompt: str
    model: str
    reward: Annotated[tuple[RewardTerm, ...], Field(strict=False)]
    held_out: Annotated[tuple[str, ...], Field(strict=False)]
    budget: Budget
    search: SearchParams
    sampler: Sampler
    num_images: int
    width: int
    height: int
    guidance_scale: float | None
    seed: int
    output_format: OutputFormat
    previews: Previews
    priority: Priority = "normal"  # as of jobs stored before there were priorities
    baseline: bool = False
    webhook: Webhook | None = None
    metadata: dict[str, str]
    image: InputImage | None = None


@dataclass(frozen=True)
class Caps:
    """What a server allows in one submission.

    `whose` limit `max_nfe` is, for the refusal; `priority`: the highest; `networks`: inner ones that webhooks
    may reach; `rewards`: those that need a setting of the server's, and have it.
    """

    max_nfe: int = 5000
    max_prompt_chars: int = 2000
    priority: Priority = "high"
    whose: str = "on this server"
    networks: tuple[Network, ...] = ()
    rewards: frozenset[str] = frozenset()
