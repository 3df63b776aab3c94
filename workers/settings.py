"""Settings that only a worker has; the rest are `contracts.settings.Settings`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.names import did_you_mean
from contracts.rewards import BROKEN, REWARDS
from contracts.settings import pairs


class WorkerSettings(BaseSettings):
    """Frozen settings, read once from `ROLLOVER_*` environment variables."""

    # What is wrong with a setting is told, never what it says: it may hold a password or a token.
    model_config = SettingsConfigDict(
        env_prefix="ROLLOVER_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    device: str = Field(default="auto", description="torch device; auto: the first GPU, else the CPU")
    reward_devices: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="devices of [rewards](rewards.md) other than the model's: `name=device`, comma separated",
    )
    model_paths: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict,
        description="folders to load models from in place of the catalogue's: `id=folder`, comma separated",
    )

    start_seconds: float = Field(
        default=1800.0,
        gt=0,
        description="seconds that an engine may take to load its model, or to warm up without progress",
    )
    shared_gib: float | None = Field(
        default=None,
        gt=0,
        description=(
            "GiB that the models of this machine's workers may take together on a device, the least recently "
            "used leaving for others; unset: each stays"
        ),
    )
    hang_seconds: float = Field(
        default=120.0,
        gt=0,
        description="seconds without progress, or ten usual steps, after which an engine is replaced",
    )
    grace_seconds: float = Field(
        default=20.0,
        gt=0,
        description=(
            "seconds that a step may keep a cancel waiting, or a job a stop, before the engine is killed"
        ),
    )

    @field_validator("model_paths", "reward_devices", mode="before")
    @classmethod
    def split_pairs(cls, value: object) -> object:
        """Read `id=folder` and `name=device` pairs."""
        return pairs(value) if isinstance(value, str) else value

    @field_validator("reward_devices")
    @classmethod
    def rewards_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        """Refuse a device for what is no reward; one whose package is broken is told of elsewhere."""
        for name in value.keys() - BROKEN.keys():
            if name not in REWARDS:
                hint = did_you_mean(name, REWARDS) or f" There are {', '.join(sorted(REWARDS))}."
                raise ValueError(f"there is no reward '{name}'.{hint}")
        return value
