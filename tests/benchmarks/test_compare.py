"""Methods compared on any model: which ones, on which prompts, by which seeds, and what the table says."""

import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks import cells, compare, search
from benchmarks.compare import DEFAULT, METHODS, Field, main, summary
from benchmarks.methods import CHOSEN_ON, FRESH, TABLE, seed_of
from benchmarks.tables import save
from contracts.requests import ResolvedRequest
from models.shapes.captions import CALIBRATION, captions, numbered
from tests.models.conftest import make_flux
from workers.engine import Engine
from workers.failures import JobFailedError

SIZE = "{ minimum = 64, maximum = 64, multiple = 64, default = 64 }"
ENTRY = f"""
[mine]
folder = "flux"
width = {SIZE}
height = {SIZE}
steps = 3
few_step = true
reward = "brightness"
held_out = ["incompressibility"]
"""
TOO_DEAR = "rbf, few-step, 2 chains, 25 noises"
SAME = "rbf, few-step, 1 chain, 12 noises"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("compare")
    make_flux(made / "flux")
    (made / "models.toml").write_text(ENTRY, encoding="utf-8")
    (made / "prompts.txt").write_text("a red circle\na red circle\na blue square\n", encoding="utf-8")
    return made


@pytest.fixture
def mine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a model of one's own, whose results go to `tmp_path`."""
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(folder / "models.toml"))
    monkeypatch.setenv("ROLLOVER_DEVICE", "cpu")
    monkeypatch.setattr(compare, "save", partial(save, results=tmp_path, tables=tmp_path))
    return ["--model", "mine", "--nfe", "20", "--prompts", str(folder / "prompts.txt")]


def test_a_model_of_ones_own_is_compared_on_prompts_of_ones_own(mine: list[str], tmp_path: Path) -> None:
    main([*mine, "--count", "2", "--seeds", "2", "--methods", SAME, TOO_DEAR, "svdd"])
    written = json.loads((tmp_path / "compare_mine.json").read_text(encoding="utf-8"))
    assert written["prompts"] == ["a red circle"] * 2
    rows = written["rows"]
    assert [*rows] == [*written["methods"]] == [DEFAULT, "svdd"]
    assert all(found.keys() == {"given", "incompressibility"} for found in rows.values())
    [first, second] = rows[DEFAULT]["given"]
    assert first != second, "the same prompt again has noises of its own"
    assert written["alike"] == {SAME: DEFAULT}
    assert "needs at least" in written["refused"][TOO_DEAR]
    table = (tmp_path / "compare_mine.md").read_text(encoding="utf-8")
    for said in ("| brightness (given) | default over it | incompressibility (held out) |", SAME, TOO_DEAR):
        assert said in table
    main([*mine, "--count", "2", "--methods", "svdd"])
    once = json.loads((tmp_path / "compare_mine.json").read_text(encoding="utf-8"))["rows"]
    assert once["svdd"] != rows["svdd"], "the mean over two seeds is not the first's"


def test_a_run_that_ends_early_leaves_a_table_of_every_ten_prompts(
    mine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n" * 11, encoding="utf-8")
    whole = compare.measure

    def failing(engine: Engine, request: ResolvedRequest, image: None) -> dict[str, float]:
        if request.seed == seed_of(10, 0):
            raise JobFailedError("out of power")
        return whole(engine, request, image)

    monkeypatch.setattr(compare, "measure", failing)
    with pytest.raises(SystemExit, match="out of power"):
        main([*mine, "--prompts", str(prompts), "--methods", "best_of_n, 1 step"])
    assert "10 prompts of 11, seeds of each: 1, NFE: 20." in (tmp_path / "compare_mine.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "mine"], "one prompt a line by --prompts"),
        (["--model", "mined"], "did you mean mine"),
        (["--count", "1"], "at least two prompts"),
        (["--nfe", "3"], "needs at least"),
        (["--reward", "brightnes"], "Did you mean 'brightness'"),
    ],
)
def test_what_cannot_be_compared_is_named(mine: list[str], options: list[str], said: str) -> None:
    given = options if "--model" in options else [*mine, *options]
    with pytest.raises(SystemExit, match=said):
        main(given)


def test_the_table_has_means_errors_and_differences_by_pairs() -> None:
    rows = {DEFAULT: {"given": [0.5, 0.7, 0.9]}, "svdd": {"given": [0.4, 0.5, 0.9]}}
    table = summary(rows, Field([*rows], {}, {}), {"given": "scene_match (given)"})
    assert table.splitlines()[2:] == [
        "| default | 0.700 ± 0.115 |  |",
        "| svdd | 0.600 ± 0.153 | 0.100 ± 0.058 |",
    ]


def test_captions_are_those_of_the_search_benchmark_and_calibration_has_others() -> None:
    assert captions(FRESH) == search.prompts()[FRESH.start :]
    measured_on = {number for prompts in (TABLE, CHOSEN_ON, FRESH) for number in prompts}
    assert not measured_on & {*CALIBRATION}
    count = len(numbered())
    with pytest.raises(ValueError, match=f"has {count} captions"):
        captions(range(count + 1))


def test_a_new_measurement_leaves_the_digest_of_the_cells() -> None:
    assert not [path for path in cells.decisive() if path.suffix == ".json" and "calibration" in str(path)]


def test_every_method_can_be_run_on_the_bundled_models() -> None:
    for model in ("shapes", "shapes-base"):
        ask = compare.asking(compare.Settings(), compare.options(["--model", model]))
        field = compare.field_of(ask, "a red circle", [*METHODS])
        assert not field.refused
        assert (SAME in field.alike) == (model == "shapes"), "today's settings below 150 NFE"
