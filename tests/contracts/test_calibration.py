"""Settings of a model from the file of its measurement."""

import json
from pathlib import Path

import pytest

from contracts.calibration import measured, undistilled
from contracts.catalogue import Defaults
from contracts.models import CatalogueError, read

SIZE = "{ minimum = 256, maximum = 1536, multiple = 16, default = 1024 }"
ENTRY = f"""
[mine]
folder = "mine"
width = {SIZE}
height = {SIZE}
steps = 20
reward = "brightness"
calibration = "kept/mine.json"
"""
ADVICE = {
    "foretold": "lower_down",
    "sampler": {"grid": "linear"},
    "rbf": {"first_level": 3, "initial_noises": 5},
}


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    file = tmp_path / "models.toml"
    file.write_text(ENTRY, encoding="utf-8")
    return file


def keep(catalogue: Path, **changed: object) -> Path:
    """Write a measurement on 10 steps where the entry names it."""
    file = catalogue.parent / "kept" / "mine.json"
    stored = {"steps": 10, "levels": [], "recommended": ADVICE | changed}
    file.write_text(json.dumps(stored), encoding="utf-8")
    return file


def test_an_entry_has_the_settings_of_the_measurement_it_names_scaled_to_its_steps(catalogue: Path) -> None:
    file = keep(catalogue)
    entry = read(catalogue)["mine"]
    assert entry.calibration == file
    defaults = entry.facts("mine").defaults
    assert (defaults.sampler, defaults.rbf) == ({"grid": "linear"}, {"first_level": 6, "initial_noises": 5})


def test_a_measurement_decides_over_few_step(catalogue: Path) -> None:
    keep(catalogue, foretold="from_noise", sampler={}, rbf={})
    assert read(catalogue)["mine"].facts("mine").defaults == Defaults()


def test_where_nothing_is_foretold_the_entry_has_what_others_have(catalogue: Path) -> None:
    file = keep(catalogue, foretold="nothing", sampler={}, rbf={})
    assert measured(file, 20) is None
    assert read(catalogue)["mine"].facts("mine").defaults == undistilled(20)


def test_settings_come_from_one_place(catalogue: Path) -> None:
    keep(catalogue)
    catalogue.write_text(ENTRY + "defaults = { rbf = { chains = 4 } }\n", encoding="utf-8")
    with pytest.raises(CatalogueError, match="either defaults or a calibration"):
        read(catalogue)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, r"mine\.json: No such file or directory; `rollover calibrate ID --out FILE` writes it"),
        ("{", "is not what `rollover calibrate` writes:  Invalid JSON"),
        ("{}", "is not what `rollover calibrate` writes: steps Field required"),
        (
            json.dumps({"steps": 10, "recommended": {**ADVICE, "rbf": {"chain": 2}}}),
            r"recommended .*rbf\.chain: Extra inputs are not permitted; there are accept",
        ),
    ],
)
def test_a_measurement_that_cannot_be_read_is_named(catalogue: Path, stored: str | None, said: str) -> None:
    if stored is not None:
        keep(catalogue).write_text(stored, encoding="utf-8")
    with pytest.raises(CatalogueError, match=said) as error:
        read(catalogue)
    assert "[mine] calibration: " in str(error.value)


def test_what_nobody_measured_goes_by_shapes_base() -> None:
    assert [undistilled(steps).rbf["first_level"] for steps in (10, 20)] == [4, 8]
