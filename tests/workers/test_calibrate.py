"""`python -m workers.calibrate` on a tiny model: the table, the file, and what it refuses."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from contracts.models import Entry, read
from contracts.resolution import accept
from models.modular import ModularBackend
from sampling.calibration import STEPS, Level, recommend
from sampling.grids import linear
from tests.models.tiny import FAMILIES, make
from workers.calibrate import correlations, main, report
from workers.engine import Engine
from workers.settings import WorkerSettings

TIMES = linear(STEPS)[:-1]
EDITOR = """
[editor]
folder = "kontext"
width = { minimum = 16, maximum = 64, multiple = 16, default = 48 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
guidance = { minimum = 1.0, maximum = 10.0, default = 2.5 }
steps = 4
reward = "brightness"
image = "required"
inputs = { _auto_resize = false }
"""
SIZE = {"minimum": 64, "maximum": 64, "multiple": 64, "default": 64}


@pytest.fixture
def prompts(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
    monkeypatch.setenv("ROLLOVER_DEVICE", "cpu")
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\n\ntwo blue squares\n", encoding="utf-8")
    return path


def test_it_measures_every_level_and_writes_what_follows(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "calibration.json"
    options = ["--reward", "brightness", "--prompts", str(prompts), "--noises", "4", "--out", str(out)]
    assert main(["shapes", *options]) == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [level["t"] for level in written["levels"]] == pytest.approx(TIMES)
    assert all(-1 <= level["correlation"] <= 1 for level in written["levels"])
    assert {level["prompts"] for level in written["levels"]} == {2}
    found = [Level(**level) for level in written["levels"]]
    assert written["recommended"]["rbf"] == recommend(found, 10).rbf
    assert capsys.readouterr().out == report(found, recommend(found, 10))


@pytest.mark.parametrize(
    ("arguments", "text", "named"),
    [
        (["shapes"], "", "no prompt in it"),
        (["shapes", "--reward", "brightnes"], "a red circle", "Did you mean 'brightness'?"),
        (["shape"], "a red circle", "did you mean shapes"),
    ],
)
def test_what_cannot_be_measured_is_named(
    prompts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str, named: str
) -> None:
    prompts.write_text(text, encoding="utf-8")
    assert main([*arguments, "--prompts", str(prompts)]) == 1
    assert named in capsys.readouterr().err


def test_too_few_noises_are_a_usage_error(prompts: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["shapes", "--prompts", str(prompts), "--noises", "2"])


def test_what_it_recommends_is_a_line_of_a_catalogue() -> None:
    told = [Level(t, 1 - t**2, 0.0, 5) for t in TIMES]
    line = report(told, recommend(told, 10)).splitlines()[-1].partition(": ")[2]
    entry = {"folder": "x", "width": SIZE, "height": SIZE, "reward": "brightness", **tomllib.loads(line)}
    defaults = Entry.model_validate(entry).facts("x").defaults
    assert (defaults.sampler, defaults.rbf) == (recommend(told, 10).sampler, recommend(told, 10).rbf)
    straight = [Level(t, 0.9, 0.0, 5) for t in TIMES]
    assert report(straight, recommend(straight, 10)).endswith("few_step = true\n")


def test_where_nothing_is_foretold_it_names_the_search_to_use_and_no_line_of_a_catalogue() -> None:
    blind = [Level(t, 0.1, 0.0, 5) for t in TIMES]
    [*_, last] = report(blind, recommend(blind, 10)).splitlines()
    assert last.startswith("nothing is foretold")
    assert last.endswith("best_of_n")
    assert "catalogue" not in last


def test_a_level_is_counted_on_the_models_own_grid(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    catalogue, out = tmp_path / "models.toml", tmp_path / "calibration.json"
    size = "{ minimum = 64, maximum = 64, multiple = 64, default = 64 }"
    where, what = f'folder = "{tiny_model}"', 'steps = 20\nreward = "brightness"'
    catalogue.write_text(f"[mine]\n{where}\nwidth = {size}\nheight = {size}\n{what}\n", encoding="utf-8")
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(catalogue))
    late = [Level(t, 1 - t, 0.0, 5) for t in TIMES]
    monkeypatch.setattr("workers.calibrate.levels", lambda _: late)
    assert main(["mine", "--prompts", str(prompts), "--noises", "3", "--out", str(out)]) == 0
    first = json.loads(out.read_text(encoding="utf-8"))["recommended"]["rbf"]["first_level"]
    assert first == recommend(late, 20).rbf["first_level"] != recommend(late, 10).rbf["first_level"]


def test_prompts_about_an_image_are_measured_at_the_times_of_their_model(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(FAMILIES["FLUX.1 Kontext"], tmp_path / "kontext")
    (tmp_path / "models.toml").write_text(EDITOR, encoding="utf-8")
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    photo, out = tmp_path / "photo.jpg", tmp_path / "calibration.json"
    Image.linear_gradient("L").resize((96, 64)).save(photo)
    prompts.write_text("make it red", encoding="utf-8")
    options = ["editor", "--prompts", str(prompts), "--noises", "3", "--out", str(out)]
    assert main([*options, "--image", str(photo)]) == 0
    entries = {"editor": read(tmp_path / "models.toml")["editor"]}
    engine = Engine.load("editor", WorkerSettings(device="cpu"), entries=entries)
    own = engine.backend.prepare("", 48, 32, None, image=Image.new("RGB", (96, 64))).schedule(STEPS)
    levels = json.loads(out.read_text(encoding="utf-8"))["levels"]
    assert [level["t"] for level in levels] == list(own[:-1])
    assert own[1] != TIMES[1]
    assert main(options) == 1
    assert "/image: Is required" in capsys.readouterr().err
    for broken in (prompts, tmp_path / "nowhere.png"):
        assert main([*options, "--image", str(broken)]) == 1
        assert broken.name in capsys.readouterr().err


def test_rows_are_halved_where_memory_runs_out_and_stay_so(engine: Engine) -> None:
    room, calls = 3, list[int]()

    def enter(_module: torch.nn.Module, _args: object, inputs: dict[str, Any]) -> None:
        calls.append(len(inputs["hidden_states"]))
        if calls[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert isinstance(engine.backend, ModularBackend)
    posted = {"prompt": "a red circle", "reward": "brightness", "held_out": []}
    asked = [accept({**posted, "seed": seed}) for seed in (0, 1)]
    hook = engine.backend.pipeline.transformer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        told = list(correlations(engine, asked, 8))
    finally:
        hook.remove()
    assert [rows for rows in calls if rows > room] == [8, 4], "the second prompt begins with what was left"
    roomy = list(correlations(engine, asked, 8))
    assert told == [pytest.approx(one, abs=1e-3) for one in roomy]


def test_of_one_prompt_the_table_has_no_error() -> None:
    alone = [Level(t, 0.9, None, 1) for t in TIMES]
    assert " 1.00  0.90 (one prompt)        1\n" in report(alone, recommend(alone, 10))
