"""What `rollover doctor` says of this machine, of models that are here, on a hub, broken or too large."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file

from contracts.models import ENTRIES, Entry
from models.room import Model
from tests.workers.breaking import (
    TRANSFORMER,
    VAE,
    cut_off,
    drop,
    enlarge,
    lose_shard,
    lose_weights,
    pickle,
    rename_class,
)
from tests.workers.hub_server import ENTRY, REPO, Hub
from workers import pull
from workers.doctor.__main__ import main
from workers.doctor.catalogue import fit
from workers.doctor.machine import Device

ROOT = Path(__file__).parents[2]
TORCHLESS = """
import sys
for name in ("torch", "numpy", "diffusers", "transformers", "safetensors", "accelerate", "huggingface_hub"):
    sys.modules[name] = None
"""
GPU = Device("cuda:0", "a GPU", 30 * 10**9, 32 * 10**9)
PARAMETERS = {"transformer": 12e9, "text_encoder": 5e9, "vae": 0.1e9}


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only model that is served: a folder, to break."""
    folder = shutil.copytree(tiny_model, tmp_path / "flux")
    (tmp_path / "models.toml").write_text(ENTRY.replace('repository = "some/flux"', 'folder = "flux"'))
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    monkeypatch.setenv("ROLLOVER_MODELS", "my-flux")
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(tmp_path))
    return folder


@pytest.fixture
def diagnose(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """Exit code and text."""

    def diagnose() -> tuple[int, str]:
        code = main([])
        return code, capsys.readouterr().out

    return diagnose


def test_a_model_that_would_run_is_told_with_its_memory(
    own: Path, diagnose: Callable[[], tuple[int, str]]
) -> None:
    code, said = diagnose()
    assert code == 0
    assert "  ok my-flux (served), licence not stated\n      files    here: " in said
    assert str(own) in said
    size = sum(tensor.nbytes for tensor in load_file(own / TRANSFORMER).values())
    assert f" transformer {size / 1000:.1f} kB, vae " in said
    assert "a picture of 32 x 32\n      cpu      fits, with room for " in said
    assert "  ok shapes, licence Apache-2.0\n" in said
    assert said.endswith("Everything that is served would run.\n")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (shutil.rmtree, "there is no folder "),
        (
            lambda folder: (folder / "model_index.json").unlink(),
            "has no model_index.json that can be read; fetch",
        ),
        (lambda folder: drop(folder, "vae"), "vae: there is no folder "),
        (lose_weights, "vae: .*vae has no weights; fetch the repository again"),
        (cut_off, "transformer: .*safetensors is not whole: it holds .*; fetch it again"),
        (
            pickle,
            r"text_encoder: .* has only pickles \(pytorch_model.bin\), which can run code and are never read",
        ),
        (lose_shard, "text_encoder: .* lacks model-00002-of-00002.safetensors, which its index names"),
        (
            lambda folder: rename_class(folder, transformer=["diffusers", "SD3Transformer2DModel"]),
            "transformer should be a FluxTransformer2DModel, and its index names SD3Transformer2DModel",
        ),
        (
            lambda folder: rename_class(folder, _class_name="LTXPipeline"),
            "LTX.* is not supported: it draws videos",
        ),
        (
            enlarge,
            r"does not fit: it takes about 4\d\d.\d GB and .* are free; no quantisation or offload makes it",
        ),
    ],
)
def test_what_a_worker_would_refuse_is_told(
    own: Path, diagnose: Callable[[], tuple[int, str]], broken: Callable[[Path], object], said: str
) -> None:
    broken(own)
    code, told = diagnose()
    assert code == 1
    assert "  NO my-flux (served)" in told
    own_lines = told.partition("my-flux (served)")[2].partition("rewards\n")[0]
    assert_found(said, own_lines)
    assert told.endswith("Something that is served would not run: see the lines with NO.\n")


def assert_found(pattern: str, text: str) -> None:
    """Like `re.search`, with the text in the failure."""
    with pytest.raises(LookupError, match=pattern):
        raise LookupError(text)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('device = "cuda:77"', "refused  there is no device 'cuda:77' for this torch"),
        ('dtype = "bfloat16"\nquantisation = "nf4"\ndevice = "cpu"', "refused  quantisation 'nf4' needs "),
        ("inputs = { max_len = 3 }", "refused  .*takes no input max_len; it takes "),
        (
            'held_out = ["pickscore"]',
            "refused  its default reward pickscore: not set up: set ROLLOVER_REWARD_PATHS",
        ),
        ('backend = "modularr"', "refused  no backend 'modularr'; did you mean modular"),
    ],
)
def test_what_an_entry_asks_in_vain_is_told(
    own: Path, diagnose: Callable[[], tuple[int, str]], lines: str, said: str
) -> None:
    catalogue = own.parent / "models.toml"
    catalogue.write_text(f"{catalogue.read_text()}{lines}\n")
    code, told = diagnose()
    assert code == 1
    assert_found(said, told)


def test_a_model_on_the_hub_is_told_with_licence_gating_and_size(
    hub: Hub, diagnose: Callable[[], tuple[int, str]]
) -> None:
    hub.gated.add(REPO)
    _, told = diagnose()
    assert "  -- my-flux, licence apache-2.0\n      files    not here: rollover models pull my-flux (" in told
    assert f", once its licence is accepted at {hub.url}/some/flux\n      gated    yes\n" in told
    # On the hub only the sizes of files are told, of which these tiny ones are headers for the most part.
    assert_found(r"memory   text_encoder \d+.\d kB, text_encoder_2 .*a picture of 32 x 32", told)
    assert not hub.fetched()


def test_a_model_that_was_fetched_is_told_as_here(
    hub: Hub, diagnose: Callable[[], tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull.main(["my-flux"]) == 0
    capsys.readouterr()
    asked = len(hub.asked)
    _, told = diagnose()
    assert "  ok my-flux, licence not stated\n      files    here: " in told
    folder = Path(told.partition("my-flux, licence not stated\n      files    here: ")[2].splitlines()[0])
    (folder / "vae" / "config.json").unlink()
    assert "not here: 1 files are still to come: rollover models pull my-flux" in diagnose()[1]
    assert len(hub.asked) == asked


def test_where_the_hub_is_away_the_catalogue_says_how_large_a_model_is(
    hub: Hub, diagnose: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    _, told = diagnose()
    assert "rollover models pull my-flux; the hub could not be asked: some/flux could not be fetched" in told
    assert "memory   unknown: neither its files are here nor does the catalogue say `parameters`" in told
    catalogue = Path(os.environ["ROLLOVER_CATALOGUE"])
    catalogue.write_text(f"{ENTRY}parameters = {{ transformer = 12, vae = 0.1 }}\n")
    assert "memory   transformer 48.0 GB, vae 400.0 MB; about " in diagnose()[1]
    assert not hub.asked


def test_a_model_that_fits_has_room_for_rows() -> None:
    entry: Entry = ENTRIES["shapes"].model_copy(update={"dtype": "bfloat16", "quantisation": "fp8"})
    needs = Model(PARAMETERS, rewards=10**9, picture=2 * 10**9)
    told = fit(entry, GPU, 64 * 10**9, needs)
    assert (told.device, told.weights, told.rows) == ("cuda:0", (12 + 10 + 0.2 + 1) * 10**9, 3)
    cpu = Device("cpu", "", 30 * 10**9, 0)
    assert fit(entry.model_copy(update={"offload": "group"}), cpu, cpu.free, needs).weights == told.weights


def test_a_model_that_does_not_fit_is_told_with_what_would_make_it() -> None:
    told = fit(ENTRIES["shapes"], GPU, 64 * 10**9, Model(PARAMETERS, picture=2 * 10**9))
    assert told.rows == 0
    assert told.said.startswith(
        "it takes about 70.4 GB and 30.0 GB are free; dtype = 'bfloat16', quantisation"
    )


def test_a_reward_that_is_not_whole_is_told(
    own: Path, tmp_path: Path, diagnose: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip").mkdir()
    monkeypatch.setenv("ROLLOVER_REWARD_PATHS", f"clip_score={tmp_path / 'clip'},hps={own / 'vae'}")
    code, told = diagnose()
    assert code == 0
    assert f"  -- clip_score         {tmp_path / 'clip'} has no weights; fetch the repository again\n" in told
    assert "  ok hps                ready\n" in told
    assert (
        "  -- pickscore          not set up: set ROLLOVER_REWARD_PATHS=pickscore=FOLDER, the folder with yuva"
        in told
    )
    assert "  -- http               not set up: set ROLLOVER_REWARD_URL\n" in told


def test_weights_of_default_rewards_take_room_beside_the_models(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    two = tmp_path / "two"
    shutil.copytree(own / "vae", two / "detector")
    shutil.copytree(own / "vae", two / "segmenter")
    for paths, reward in (
        ("", "brightness"),
        (f"hps={own / 'vae'}", "hps"),
        (f"grounded_count={two}", "grounded_count"),
    ):
        monkeypatch.setenv("ROLLOVER_REWARD_PATHS", paths)
        catalogue = ENTRY.replace('repository = "some/flux"', 'folder = "flux"').replace("brightness", reward)
        (tmp_path / "models.toml").write_text(catalogue)
        assert main(["--json"]) == 0
        [model] = [each for each in json.loads(capsys.readouterr().out)["models"] if each["served"]]
        taken.append(model["fits"][0]["weights"])
    one = sum(tensor.nbytes for tensor in load_file(own / VAE).values())
    assert taken == [taken[0], taken[0] + one, taken[0] + 2 * one]
    monkeypatch.setenv("ROLLOVER_REWARD_DEVICES", "grounded_count=cpu")
    assert main(["--json"]) == 0
    [model] = [each for each in json.loads(capsys.readouterr().out)["models"] if each["served"]]
    assert model["fits"][0]["weights"] == taken[0]
    (two / "segmenter" / VAE.rpartition("/")[2]).unlink()
    assert main([]) == 1
    assert f"grounded_count     {two / 'segmenter'} has no weights" in capsys.readouterr().out


def test_a_store_is_asked_and_its_password_not_shown(
    own: Path, redis_url: str, diagnose: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_REDIS_URL", redis_url)
    assert "  ok redis " in diagnose()[1]
    monkeypatch.setenv("ROLLOVER_REDIS_URL", "redis://:s3cret@127.0.0.1:9/0")
    code, told = diagnose()
    assert code == 1
    assert "  NO redis    127.0.0.1:9/0 does not answer: " in told
    assert "s3cret" not in told
    assert own.is_dir()


def test_a_data_directory_that_cannot_be_is_told(
    own: Path, diagnose: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(own / "model_index.json" / "var"))
    code, told = diagnose()
    assert code == 1
    assert "model_index.json cannot be written: set ROLLOVER_DATA_DIR to a folder that can" in told


def test_wrong_settings_are_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own.parent / "models.toml").write_text(ENTRY.replace("[my-flux]", '[my-flux]\nquantisation = "int4"'))
    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("doctor: ")
    assert "[my-flux] quantisation: Input should be 'none', 'fp8', 'int8' or 'nf4'" in said


def test_the_command_works_without_torch(own: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(TORCHLESS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "rollover", "doctor", "--json", "--data-dir", str(tmp_path / "data")]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    told = json.loads(ran.stdout)
    said = {found["name"]: (found["ok"], found["said"]) for found in told["machine"]}
    assert said["torch"] == (False, "not installed, so no model runs: pip install 'rollover[worker]'")
    assert said["data"][1].startswith(str(tmp_path / "data"))
    [served] = [model for model in told["models"] if model["served"]]
    assert (served["id"], served["files"]["folder"]) == ("my-flux", str(own))
    assert (served["ok"], served["refused"]) == (False, ["torch is not installed"])
    assert [place["device"] for place in served["fits"]] == ["cpu"]
    assert told["devices"][0]["free"] > 0
    assert not told["ok"]
