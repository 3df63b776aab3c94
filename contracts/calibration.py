"""Settings of a model that follow from what `rollover calibrate` measured of it, read from its file."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.catalogue import Defaults
from contracts.search import RbfParams, SamplerRequest

UNDISTILLED = Path(__file__).parents[1] / "models" / "shapes" / "calibration" / "shapes-base.json"
"""Of the one model of many steps that could be measured: what others go by until they are."""


class SearchDefaults(Defaults):
    """Search settings that can be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def are_known(self) -> Self:
        """Refuse settings that a submission could not name."""
        for name, settings in (("sampler", SamplerRequest), ("rbf", RbfParams)):
            try:
                settings.model_validate(getattr(self, name))
            except ValidationError as error:
                [problem, *_] = error.errors(include_url=False)
                place = ".".join([name, *map(str, problem["loc"])])
                known = ", ".join(sorted(settings.model_fields))
                raise ValueError(f"{place}: {problem['msg']}; there are {known}") from None
        return self


class Recommended(SearchDefaults):
    """`sampling.calibration.Recommendation`, as stored."""

    foretold: Literal["from_noise", "lower_down", "nothing"]


class Measurement(BaseModel):
    """What requests go by of the file; the rest of it says how it was measured.

    Attributes:
        steps: of the grid that `first_level` counts on.
        recommended: the settings that follow.
    """

    model_config = ConfigDict(frozen=True)

    steps: int = Field(ge=1)
    recommended: Recommended


def measured(file: Path, steps: int) -> Defaults | None:
    """The settings that follow from a measurement, for a grid of so many steps; None: nothing is foretold.

    Raises:
        ValueError: there is no measurement in the file, or no file.
    """
    try:
        found = Measurement.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; `rollover calibrate ID --out FILE` writes it") from None
    except ValidationError as error:
        [problem, *_] = error.errors(include_url=False)
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(
            f"{file} is not what `rollover calibrate` writes: {place} {problem['msg']}"
        ) from None
    advice = found.recommended
    if advice.foretold == "nothing":
        return None
    rbf: dict[str, Any] = dict(advice.rbf)
    if "first_level" in rbf:
        rbf["first_level"] = scaled_level(rbf["first_level"], found.steps, steps)
    return Defaults(sampler=advice.sampler, rbf=rbf)


def undistilled(steps: int) -> Defaults:
    """Settings for a model of many steps that nobody has measured: those of `shapes-base`.

    Raises:
        ValueError: its measurement is not there, or says that there are none.
    """
    found = measured(UNDISTILLED, steps)
    if found is None:
        raise ValueError(f"{UNDISTILLED} has no settings for models of many steps")
    return found


def scaled_level(level: int, of: int, steps: int) -> int:
    """The level of a grid of `steps` that lies where a level of a grid `of` so many lies, or just above.

    At least one level is left between it and the end, where the grid has two.
    """
    return max(0, min(level * steps // of, steps - 2))
