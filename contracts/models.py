"""The catalogue of models: what clients are told of each, and what a worker loads it from.

A catalogue is a TOML file with a table for each model. The bundled one is `models.toml` beside this module;
an owner's, which ROLLOVER_CATALOGUE names, adds to it, or replaces entries of the same id.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.calibration import SearchDefaults, measured, undistilled
from contracts.catalogue import Defaults, GuidanceFacts, ModelFacts, SizeFacts, TakesImage
from contracts.names import did_you_mean
from contracts.rewards import BROKEN, REWARDS
from contracts.search import Steps, Strict

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DEVICE = r"^[a-z]+(:[0-9]+)?$"
REPOSITORY = r"^[A-Za-z0-9][\w.-]*/[\w.-]+$"
BUNDLED = Path(__file__).with_name("models.toml")


class CatalogueError(ValueError):
    """A catalogue cannot be used; the message names the file, the entry, the field and what is allowed."""


class SizeLimits(SizeFacts):
    """Limits of a width or height that agree with each other."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    minimum: int = Field(ge=1)
    maximum: int = Field(le=16384)
    multiple: int = Field(ge=1)

    @model_validator(mode="after")
    def agree(self) -> Self:
        """Refuse limits that allow nothing, or not the default."""
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError("must have minimum <= default <= maximum")
        if any(size % self.multiple for size in (self.minimum, self.default, self.maximum)):
            raise ValueError("must have minimum, default and maximum that are multiples of multiple")
        return self


class GuidanceLimits(GuidanceFacts):
    """Limits of a guidance scale that agree with each other."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def agree(self) -> Self:
        """Refuse limits that do not allow the default."""
        if not 0 <= self.minimum <= self.default <= self.maximum:
            raise ValueError("must have 0 <= minimum <= default <= maximum")
        return self


class Loading(BaseModel):
    """What a worker loads a model from, and how.

    Attributes:
        backend: what drives it; an installed package may add one (`models.registry`).
        folder: in diffusers' layout; relative to the catalogue's file.
        repository: of the Hugging Face hub, in place of a folder, as `hf download` has put it here.
        revision: branch, tag or commit of the repository.
        dtype: type of the weights once loaded, whatever they are stored as.
        device: torch device; None: the worker's own.
        quantisation: keeps the transformer's weights in 8 bits, or 4, and computes in `dtype`.
        offload: whether networks lie in the CPU's memory until they compute: the text encoders, all of them
            whole, or layer by layer.
        vae_tiling: decode large pictures in tiles, which takes less memory.
        compile: have torch compile the transformer's blocks: minutes at the start, less time for each call.
        max_batch: the most rows in a call of the model or the rewards; None: as many as memory has room for.
        inputs: values for the family's own block inputs.
        parameters: billions of weights by network, for `rollover doctor` before anything is here.
    """

    backend: str = "modular"
    folder: Path | None = None
    repository: Annotated[str, Field(pattern=REPOSITORY)] | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(pattern=DEVICE)] | None = None
    quantisation: Literal["none", "fp8", "int8", "nf4"] = "none"
    offload: Literal["none", "text_encoders", "model", "group"] = "none"
    vae_tiling: bool = False
    compile: bool = False
    max_batch: Annotated[int, Field(ge=1)] | None = None
    inputs: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    parameters: Mapping[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict[str, float])


class Entry(Strict, Loading):
    """One table of a catalogue. What it may say of requests is what `ModelFacts` tells clients.

    Attributes:
        calibration: file of `rollover calibrate`, from which `defaults` follow; relative to the catalogue's.
    """

    model_config = ConfigDict(strict=False)

    title: str | None = None
    licence: str = "not stated"
    width: SizeLimits
    height: SizeLimits
    steps: Steps = 10
    few_step: bool = False
    guidance: GuidanceLimits | None = None
    image: TakesImage = "none"
    reward: str
    held_out: tuple[str, ...] = ()
    defaults: SearchDefaults | None = None
    calibration: Path | None = None

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        """Refuse an entry with no weights to load, or two."""
        if (self.folder is None) == (self.repository is None):
            raise ValueError("must have either a folder or a repository")
        if self.revision is not None and self.repository is None:
            raise ValueError("must have a repository to have a revision")
        return self

    @model_validator(mode="after")
    def can_be_loaded_so(self) -> Self:
        """Refuse ways of loading that do not go together."""
        if self.quantisation == "int8" and self.dtype != "bfloat16":
            raise ValueError("must have dtype = 'bfloat16' to have quantisation = 'int8'")
        if self.quantisation == "nf4" and self.offload == "group":
            raise ValueError("must have offload = 'model' or 'none' to have quantisation = 'nf4'")
        return self

    @model_validator(mode="after")
    def has_settings_from_one_place(self) -> Self:
        """Refuse settings beside the file that they would follow from."""
        if self.defaults is not None and self.calibration is not None:
            raise ValueError("must have either defaults or a calibration")
        return self

    def facts(self, name: str) -> ModelFacts:
        """What clients are told of it. Raises ValueError where its calibration cannot be read."""
        fields = self.model_dump(include=set(ModelFacts.model_fields))
        told = {"id": name, "title": self.title or name, "defaults": self.defaults or self.calibrated()}
        return ModelFacts.model_validate(fields | told)

    def calibrated(self) -> Defaults:
        """Settings by its measurement; without one, or where that foretells nothing, by `few_step`.

        Raises:
            ValueError: its calibration cannot be read.
        """
        found = None if self.calibration is None else measured(self.calibration, self.steps)
        return found or (Defaults() if self.few_step else undistilled(self.steps))


def read(path: Path) -> dict[str, Entry]:
    """Read a catalogue.

    Raises:
        CatalogueError: there is no such file, it is no TOML, or an entry cannot be used; with every problem.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path}: no catalogue of models can be read there: {error}") from error
    problems = [
        f"{path}: [{name}] {problem}"
        for name, table in tables.items()
        for problem in problems_of(name, table)
    ]
    if problems:
        raise CatalogueError("\n".join(problems))
    entries = {name: located(Entry.model_validate(table), path) for name, table in tables.items()}
    for name, entry in entries.items():
        try:
            entry.calibrated()
        except ValueError as error:
            raise CatalogueError(f"{path}: [{name}] calibration: {error}") from None
    return entries


def problems_of(name: str, table: object) -> list[str]:
    """Everything that is wrong with an entry."""
    if not ID.fullmatch(name):
        return ["is no id: up to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit"]
    try:
        entry = Entry.model_validate(table)
    except ValidationError as error:
        return [described(each) for each in error.errors(include_url=False)]
    return [
        problem for reward in (entry.reward, *entry.held_out) for problem in reward_problems(name, reward)
    ]


def described(error: Mapping[str, Any]) -> str:
    """One problem: the field, and what is allowed."""
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        kind = {"width": SizeLimits, "height": SizeLimits, "guidance": GuidanceLimits}
        fields = kind.get(str(error["loc"][0]), Entry).model_fields
        hint = did_you_mean(str(error["loc"][-1]), fields)
        return f"{place}: there is no such field.{hint or ' There are ' + ', '.join(sorted(fields)) + '.'}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def reward_problems(model: str, name: str) -> list[str]:
    """A default reward is known, and makes sense for the model."""
    if name not in REWARDS:
        if name in BROKEN:
            return [f"reward: {BROKEN[name]}"]
        hint = did_you_mean(name, REWARDS) or f" There are {', '.join(sorted(REWARDS))}."
        return [f"reward: there is no reward '{name}'.{hint}"]
    only = REWARDS[name].models
    if only is not None and model not in only:
        return [f"reward: '{name}' applies to {', '.join(only)} only"]
    return []


def located(entry: Entry, path: Path) -> Entry:
    """The entry, with what it names found from where the catalogue is."""
    named = {"folder": entry.folder, "calibration": entry.calibration}
    places = {name: place.expanduser() for name, place in named.items() if place is not None}
    found = {name: (path.parent / place).resolve() for name, place in places.items()}
    return entry.model_copy(update=found)


ENTRIES: Mapping[str, Entry] = read(BUNDLED)
"""The bundled models."""

MODELS: Mapping[str, ModelFacts] = {name: entry.facts(name) for name, entry in ENTRIES.items()}
"""What clients are told of the bundled models."""
