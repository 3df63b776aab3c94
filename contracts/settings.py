"""Settings of the server and its workers, read once from `ROLLOVER_*` environment variables."""

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.catalogue import ModelFacts
from contracts.destinations import Destination, Network, destination
from contracts.models import ENTRIES, Entry, read
from contracts.names import did_you_mean
from contracts.requests import Caps
from contracts.resolution import default_problems
from contracts.rewards import BROKEN, REWARDS

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class Settings(BaseSettings):
    """Frozen settings; docs/operations.md lists every one with its environment variable."""

    # What is wrong with a setting is told, never what it says: it may hold a password or a token.
    model_config = SettingsConfigDict(
        env_prefix="ROLLOVER_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    data_dir: Path = Field(default=Path("var"), description="where the embedded store and artifacts live")
    redis_url: str | None = Field(
        default=None, description="Redis or Valkey; unset: `rollover serve` starts an embedded one"
    )
    artifacts_url: str | None = Field(
        default=None,
        description="fsspec URL of the artifact store; unset: `artifacts` in the data directory",
    )
    host: str = Field(default="127.0.0.1", description="address the API binds")
    port: int = Field(default=8000, ge=0, le=65535, description="port the API binds; 0: a free one")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("shapes",),
        min_length=1,
        description="models served, comma separated; the first is default",
    )
    catalogue: Path | None = Field(
        default=None,
        description="a TOML file of [models](models.md#a-catalogue-of-your-own) beside the bundled ones",
    )
    max_nfe: int = Field(default=5000, ge=1, description="largest NFE budget of a submission")
    max_prompt_chars: int = Field(default=2000, ge=1, description="longest prompt, in characters")
    max_body_bytes: int = Field(
        default=65536, ge=1, description="largest request body, in bytes, an image in it not counted"
    )
    max_image_bytes: int = Field(
        default=10 * 2**20,
        ge=1,
        description="largest file of an image posted, in bytes; base64 is a third more",
    )
    max_image_pixels: int = Field(default=4096**2, ge=1, description="most pixels of an image posted")
    max_queue: int = Field(default=10000, ge=1, description="generations that may wait for one model")
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="executions in a row that vanish and get no further before a job ends as worker_lost",
    )
    job_timeout_seconds: int = Field(
        default=3600,
        ge=1,
        description="seconds that a job may run, its executions added up, before it ends as `deadline`",
    )
    reward_paths: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict[str, Path],
        description="folders with weights of [rewards](rewards.md): `name=folder`, comma separated",
    )
    reward_url: str | None = Field(
        default=None, description="scoring service behind the reward `http`; unset: there is none"
    )
    reward_token: SecretStr | None = Field(
        default=None, description="what the scoring service is sent as `Authorization: Bearer`"
    )
    reward_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="inner networks where the scoring service may be, comma separated, such as `10.1.0.0/16`",
    )
    reward_timeout_seconds: float = Field(
        default=15.0,
        gt=0,
        le=60,
        description="time the scoring service has for one answer, its three tries together",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="what webhooks are signed from; unset: made once, and kept in Redis",
    )
    webhook_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="inner networks that webhooks may reach, comma separated, such as `10.1.0.0/16`",
    )
    webhook_attempts: int = Field(
        default=10, ge=1, description="tries to deliver a webhook before it is given up"
    )
    webhook_retry_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="pause after a webhook's first try; each further one is four times as long, up to 3 h",
    )
    webhook_timeout_seconds: float = Field(
        default=15.0, gt=0, le=60, description="time a receiver has to answer a webhook"
    )

    keep_days: float = Field(
        default=30.0,
        ge=0,
        le=36_500,
        description="days that an ended generation and all of it are kept; 0: until it is deleted",
    )

    @field_validator("models", mode="before")
    @classmethod
    def split_names(cls, value: object) -> object:
        """Read a comma-separated list."""
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    @field_validator("reward_paths", mode="before")
    @classmethod
    def split_paths(cls, value: object) -> object:
        """Read `name=folder` pairs."""
        return pairs(value) if isinstance(value, str) else value

    @field_validator("webhook_networks", "reward_networks", mode="before")
    @classmethod
    def read_networks(cls, value: object) -> object:
        """Read a comma-separated list of networks."""
        if not isinstance(value, str):
            return value
        return tuple(ip_network(name) for part in value.split(",") if (name := part.strip()))

    @field_validator("redis_url")
    @classmethod
    def redis_can_be_opened(cls, value: str | None) -> str | None:
        """Refuse a URL that no Redis client can open, or that it would take for another."""
        if value is not None and not value.startswith(REDIS_SCHEMES):
            raise ValueError(f"a Redis URL starts with {', '.join(REDIS_SCHEMES)}")
        if value is not None and is_misread(value):
            raise ValueError(
                "cannot be read: the port is a number up to 65535, and `/`, `?`, `#`, `[` and `]` "
                "in a password are percent-encoded, `/` as %2F"
            )
        return value

    @model_validator(mode="after")
    def models_are_known(self) -> Self:
        """Refuse a model that is not in the catalogue."""
        for name in self.models:
            if name not in self.entries:
                hint = did_you_mean(name, self.entries) or f" There are {', '.join(sorted(self.entries))}."
                raise ValueError(f"ROLLOVER_MODELS: unknown model '{name}'.{hint}")
        return self

    @model_validator(mode="after")
    def models_can_be_searched_by_default(self) -> Self:
        """Refuse a model whose defaults do not go together: nobody who names a prompt alone could use it."""
        for name, facts in self.served.items():
            if problems := default_problems(facts):
                told = "; ".join(f"{problem.pointer}: {problem.detail}" for problem in problems)
                raise ValueError(f"model '{name}' refuses a submission of a prompt alone: {told}")
        return self

    @model_validator(mode="after")
    def rewards_have_folders(self) -> Self:
        """Refuse a folder for what is no reward, or for one that reads none."""
        known = [name for name, facts in REWARDS.items() if facts.setting == "ROLLOVER_REWARD_PATHS"]
        for name in self.reward_paths:
            if name not in known and name not in BROKEN:
                hint = did_you_mean(name, known) or f" There are {', '.join(known)}."
                raise ValueError(f"ROLLOVER_REWARD_PATHS: no reward '{name}' takes a folder.{hint}")
        return self

    @model_validator(mode="after")
    def scoring_service_can_be_reached(self) -> Self:
        """Refuse a scoring service at no URL, or at an inner address that is not allowed."""
        if self.scoring is None and self.reward_token:
            raise ValueError("ROLLOVER_REWARD_TOKEN: there is no ROLLOVER_REWARD_URL to send it to")
        return self

    @property
    def scoring(self) -> Destination | None:
        """Where the reward `http` is asked for. Raises ValueError where it must not be."""
        if self.reward_url is None:
            return None
        try:
            return destination(self.reward_url, self.reward_networks, "ROLLOVER_REWARD_NETWORKS")
        except ValueError as error:
            raise ValueError(f"ROLLOVER_REWARD_URL: {error}") from None

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Every model of the bundled catalogue and of the owner's. Raises contracts.models.CatalogueError."""
        return {**ENTRIES, **(read(self.catalogue) if self.catalogue else {})}

    @property
    def served(self) -> Mapping[str, ModelFacts]:
        """The models that are served, the default first."""
        return {name: self.entries[name].facts(name) for name in self.models}

    @property
    def image_room(self) -> int:
        """Bytes that a submission may have more for its image in base64; 0 where no model takes one."""
        takes = any(model.image != "none" for model in self.served.values())
        return self.max_image_bytes * 3 // 2 if takes else 0

    @property
    def artifacts(self) -> str:
        """URL of the artifact store."""
        return self.artifacts_url or str(self.data_dir / "artifacts")

    @property
    def keep(self) -> timedelta | None:
        """How long an ended generation is kept; None: until it is deleted."""
        return timedelta(days=self.keep_days) if self.keep_days else None

    @property
    def local(self) -> bool:
        """Whether the API can be reached from its own machine only."""
        return is_loopback(self.host)

    @property
    def rewards(self) -> frozenset[str]:
        """Rewards that need a setting, and have it."""
        return frozenset([*self.reward_paths, *(["http"] if self.reward_url else [])])

    @property
    def caps(self) -> Caps:
        """What one submission may ask for."""
        return Caps(
            max_nfe=self.max_nfe,
            max_prompt_chars=self.max_prompt_chars,
            networks=self.webhook_networks,
            rewards=self.rewards,
        )


def is_misread(redis_url: str) -> bool:
    """Whether a client finds no port in a Redis URL, or the end of its password where the path should be."""
    try:
        parts = urlsplit(redis_url)
        parts.port  # noqa: B018 -- reading it checks it
    except ValueError:
        return True
    # A password such as `777/x` makes 777 the port. A socket file may have any name, and an option any value.
    path = "" if parts.scheme == "unix" else parts.path
    return "@" in path + parts.fragment + parts.query.partition("=")[0]


def pairs(text: str) -> dict[str, str]:
    """Read `name=value` pairs, comma separated.

    Raises:
        ValueError: one is no pair.
    """
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {name.strip(): value.strip() for name, _, value in parts}
    if not all(name and value for name, value in found.items()):
        raise ValueError("must be name=value, comma separated")
    return found


def in_words(error: Exception) -> str:
    """Say which variables of the environment are wrong, and why; of another error what it says itself."""
    if not isinstance(error, ValidationError):
        return str(error)
    told: list[str] = []
    for each in error.errors(include_url=False):
        name = "_".join(["ROLLOVER", *(str(step).upper() for step in each["loc"][:1])])
        what = each["msg"].removeprefix("Value error, ")
        told.append(f"{name}: {what}" if each["loc"] else what)
    return "; ".join(told)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine and no other."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
