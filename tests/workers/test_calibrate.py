"""`python -m workers.calibrate` on a tiny model: the table, the file, and what it refuses."""

import json
import shutil
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from contracts.models import ENTRIES, MODELS, Entry, read
from contracts.resolution import accept
from models.modular import ModularBackend
from models.shapes.captions import CALIBRATION, captions
from sampling.calibration import STEPS, Level, recommend
from sampling.grids import linear
from tests.models.tiny import FAMILIES, make
from workers.calibrate import correlations, main, report
from workers.engine import Engine
from workers.provenance import weights_sha256
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
    assert capsys.readouterr().out == report(found, recommend(found, 10), out, named=False)


def test_a_bundled_model_has_prompts_of_its_own_and_other_weights_keep_what_is_measured_of_them(
    prompts: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(tiny_model, folder)
    monkeypatch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={folder}")
    monkeypatch.setattr("workers.calibrate.CALIBRATION", range(300, 302))
    prompts.unlink()
    assert main(["shapes", "--reward", "brightness", "--noises", "3"]) == 0
    written = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    assert written["prompts"] == captions(range(300, 302))
    assert written["weights"] == weights_sha256(tiny_model)
    assert (written["reward"], written["noises"], written["steps"]) == ("brightness", 3, 10)


@pytest.mark.parametrize(("model", "foretold"), [("shapes", "from_noise"), ("shapes-base", "lower_down")])
def test_a_bundled_model_has_the_settings_that_follow_from_its_stored_measurement(
    model: str, foretold: str
) -> None:
    entry = ENTRIES[model]
    assert entry.calibration is not None
    assert entry.folder is not None
    stored = json.loads(entry.calibration.read_text(encoding="utf-8"))
    assert stored["weights"] == weights_sha256(entry.folder), "rollover calibrate measures the new weights"
    assert stored["prompts"] == captions(CALIBRATION)
    follows = recommend([Level(**level) for level in stored["levels"]], entry.steps)
    assert stored["recommended"] == asdict(follows)
    assert follows.foretold == foretold
    assert entry.few_step == (foretold == "from_noise")
    defaults = MODELS[model].defaults
    assert (defaults.sampler, defaults.rbf) == (follows.sampler, follows.rbf)


@pytest.mark.parametrize("other", [["--reward", "brightness"], ["--prompts", "prompts.txt"]])
def test_a_bundled_measurement_is_not_replaced_by_one_of_another_kind(
    other: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shapes-base", *other]) == 1
    assert "with --reward or --prompts name a file to write by --out" in capsys.readouterr().err


def test_a_model_that_is_not_bundled_needs_prompts(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.toml").write_text(EDITOR, encoding="utf-8")
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    prompts.unlink()
    assert main(["editor"]) == 1
    assert (
        "'editor' is not bundled: name a file with one prompt a line by --prompts" in capsys.readouterr().err
    )


def test_what_cannot_be_written_is_still_told(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--reward", "brightness", "--prompts", str(prompts), "--noises", "3"]
    assert main(["shapes", *options, "--out", str(prompts / "calibration.json")]) == 1
    told = capsys.readouterr()
    assert "correlation" in told.out
    assert "name another file by --out" in told.err


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


def test_what_it_recommends_comes_with_a_line_of_a_catalogue(tmp_path: Path) -> None:
    told, out = [Level(t, 1 - t**2, 0.0, 5) for t in TIMES], tmp_path / 'a "file".json'
    follows = recommend(told, 10)
    out.write_text(json.dumps({"steps": 10, "recommended": asdict(follows)}), encoding="utf-8")
    line = report(told, follows, out, named=False).splitlines()[-1].partition(": ")[2]
    entry = {"folder": "x", "width": SIZE, "height": SIZE, "reward": "brightness", **tomllib.loads(line)}
    defaults = Entry.model_validate(entry).facts("x").defaults
    assert (defaults.sampler, defaults.rbf) == (follows.sampler, follows.rbf)
    again = report(told, follows, out, named=True).splitlines()[-1]
    assert again == f"{out} is what the catalogue names: the API takes the settings from there when it starts"


def test_of_a_few_step_model_it_says_so() -> None:
    straight = [Level(t, 0.9, 0.0, 5) for t in TIMES]
    assert "few_step = true" in report(straight, recommend(straight, 10), Path("x"), named=False)


def test_where_nothing_is_foretold_it_names_the_search_to_use() -> None:
    blind = [Level(t, 0.1, 0.0, 5) for t in TIMES]
    [*_, said, _] = report(blind, recommend(blind, 10), Path("x"), named=False).splitlines()
    assert said.startswith("nothing is foretold")
    assert said.endswith("best_of_n")


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
    assert " 1.00  0.90 (one prompt)        1\n" in report(
        alone, recommend(alone, 10), Path("x"), named=False
    )
