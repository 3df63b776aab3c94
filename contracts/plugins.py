"""Rewards of installed packages: what a package says of its reward, and how packages are found.

A package names an instance of `RewardPlugin` in its entry points, group `rollover.rewards`; the entry point's
name is the reward's. API and workers read it alike, and the API has no torch: so the code of the reward is
named by `factory`, which only workers import.
"""

import re
from collections import defaultdict
from collections.abc import Container, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contracts.catalogue import NoParams, RewardFacts
from contracts.search import Strict

GROUP = "rollover.rewards"
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class RewardPlugin(BaseModel):
    """What a package says of its reward; see `contracts.catalogue.RewardFacts`.

    Attributes:
        factory: `module:class` of the reward itself, as `models.rewards.protocol.Reward` describes it.
        needs_folder: it is made with the `folder` that ROLLOVER_REWARD_PATHS gives it, and not without.
        params: the model of its parameters, which `score` is given by name, as JSON has them. Each has a
            default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    factory: Annotated[str, Field(pattern=IMPORT_PATH)]
    licence: str
    minimum: float | None = None
    maximum: float | None = None
    differentiable: bool = False
    weights: str | None = None
    weights_licence: str | None = None
    needs_folder: bool = False
    models: tuple[str, ...] | None = None
    mean: float = 0.0
    scale: float = Field(default=1.0, gt=0.0)
    params: type[Strict] = NoParams

    @field_validator("params")
    @classmethod
    def have_defaults(cls, params: type[Strict]) -> type[Strict]:
        """Refuse parameters without a default: a bare name, or a held-out reward, has none to give."""
        if lacking := [name for name, field in params.model_fields.items() if field.is_required()]:
            raise ValueError(f"{', '.join(lacking)} must have a default")
        return params

    def facts(self, name: str) -> RewardFacts:
        """What clients are told of it."""
        told = {field: getattr(self, field) for field in RewardFacts.model_fields if hasattr(self, field)}
        setting = "ROLLOVER_REWARD_PATHS" if self.needs_folder else None
        return RewardFacts.model_validate(told | {"name": name, "setting": setting})


class PluginError(Exception):
    """A package's reward cannot be used; the message says why."""


def discovered(taken: Container[str]) -> tuple[Mapping[str, RewardPlugin], Mapping[str, str]]:
    """The rewards of installed packages, and for each that cannot be used, why. None stops another.

    Args:
        taken: names that no package may give.
    """
    named: dict[str, list[EntryPoint]] = defaultdict(list)
    for entry in entry_points(group=GROUP):
        named[entry.name].append(entry)
    found: dict[str, RewardPlugin] = {}
    broken: dict[str, str] = {}
    for name, entries in sorted(named.items()):
        try:
            found[name] = loaded(name, entries, taken)
        except PluginError as error:
            packages = " and ".join(sorted({package_of(entry) for entry in entries}))
            broken[name] = f"the reward '{name}' of the package {packages} cannot be used: {error}"
    return found, broken


def loaded(name: str, entries: list[EntryPoint], taken: Container[str]) -> RewardPlugin:
    """What the only entry point of a name leads to.

    Raises:
        PluginError: it leads to no `RewardPlugin`, or the name is another's.
    """
    if not NAME.fullmatch(name):
        raise PluginError("its name must be up to 64 of a-z, 0-9 and '_', the first a letter")
    if name in taken:
        raise PluginError("Rollover has a reward of that name; choose another")
    if len(entries) > 1:
        raise PluginError("two packages give this name; uninstall one")
    [entry] = entries
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module may raise
        why = " ".join(str(error).split())
        raise PluginError(f"{entry.value} cannot be imported: {type(error).__name__}: {why}") from error
    if not isinstance(plugin, RewardPlugin):
        raise PluginError(f"{entry.value} is a {type(plugin).__name__}, not a contracts.plugins.RewardPlugin")
    return plugin


def package_of(entry: EntryPoint) -> str:
    """Name and version of the package that an entry point is of."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "without a name"
