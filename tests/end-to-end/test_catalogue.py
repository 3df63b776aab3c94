"""A user's own model: a folder, an entry in a catalogue, a job over HTTP, and the picture back."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from rollover import Client
from rollover.cli import app
from rollover.errors import ApiError
from rollover.serve import Stack, StackError, StackSettings
from tests.models.tiny import FAMILIES, make

ENTRY = """
[my-qwen]
folder = "qwen-image"
width = { minimum = 16, maximum = 64, multiple = 16, default = 48 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
guidance = { minimum = 1.0, maximum = 10.0, default = 4.0 }
steps = 4
reward = "brightness"
"""


EDITOR = """
[my-kontext]
folder = "kontext"
width = { minimum = 16, maximum = 64, multiple = 16, default = 48 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
guidance = { minimum = 1.0, maximum = 10.0, default = 2.5 }
steps = 4
reward = "brightness"
image = "required"
inputs = { _auto_resize = false }
"""


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen") / "qwen-image"
    make(FAMILIES["Qwen-Image"], folder)
    return folder


@pytest.fixture
def own(tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a catalogue that has a copy of the model to break."""
    shutil.copytree(qwen, tmp_path / "qwen-image")
    (tmp_path / "models.toml").write_text(ENTRY)
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    monkeypatch.setenv("ROLLOVER_DEVICE", "cpu")
    return tmp_path


def serve(own: Path) -> Stack:
    return Stack(StackSettings(port=0, data_dir=own / "var", models=["my-qwen"]), print)


def test_a_model_of_ones_own_is_searched(own: Path) -> None:
    with serve(own) as stack, Client(stack.url) as client:
        [listed] = client.models()
        assert (listed["id"], listed["available"], listed["guidance"]["default"]) == ("my-qwen", True, 4.0)
        job = client.wait(client.submit("a red circle", nfe=40, seed=1).id, within=60)
        assert job.status == "succeeded"
        request = job.raw["request"]
        assert (request["model"], request["guidance_scale"]) == ("my-qwen", 4.0)
        assert request["sampler"]["steps"] == 4
        assert (job.usage["nfe_spent"], job.usage["model_forwards"]) == (40, 80)
        with Image.open(io.BytesIO(client.image(job.id))) as picture:
            assert picture.size == (48, 32)
        unguided = client.wait(client.submit("x", nfe=40, guidance_scale=1.0).id, within=60)
        assert unguided.usage["model_forwards"] == 40


def test_a_model_of_pickles_is_refused_with_what_to_do(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    [weights] = (own / "qwen-image" / "transformer").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(StackError) as refused:
        serve(own).__enter__()
    said = f"{refused.value}{capfd.readouterr()}"
    assert "the model cannot be loaded" in said
    assert "transformer has only pickles (diffusion_pytorch_model.bin), which can run code" in said


def test_a_wrong_entry_is_refused_with_what_is_allowed(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own / "models.toml").write_text(ENTRY.replace("steps = 4", 'quantisation = "int4"'))
    with pytest.raises(StackError) as refused:
        serve(own).__enter__()
    said = f"{refused.value}{capfd.readouterr()}"
    assert "models.toml: [my-qwen] quantisation: Input should be 'none', 'fp8', 'int8' or 'nf4'" in said


def test_a_prompt_about_an_image_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(FAMILIES["FLUX.1 Kontext"], tmp_path / "kontext")
    (tmp_path / "models.toml").write_text(EDITOR)
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    monkeypatch.setenv("ROLLOVER_DEVICE", "cpu")
    photo, out = tmp_path / "photo.jpg", tmp_path / "out"
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(photo)
    settings = StackSettings(port=0, data_dir=tmp_path / "var", models=["my-kontext"])
    with Stack(settings, print) as stack, Client(stack.url) as client:
        assert [entry["image"] for entry in client.models()] == ["required"]
        with pytest.raises(ApiError, match="/image: Is required"):
            client.submit("make it red")
        job = client.wait(
            client.submit("make it red", image=photo.read_bytes(), nfe=40, seed=1).id, within=60
        )
        assert job.status == "succeeded"
        facts = job.raw["request"]["image"]
        assert (facts["width"], facts["height"], facts["bytes"]) == (96, 64, photo.stat().st_size)
        with Image.open(io.BytesIO(client.image(job.id))) as picture:
            assert picture.size == (48, 32)
        arguments = ["generate", "make it red", "--image", str(photo), "--nfe", "40", "--seed", "1"]
        ran = CliRunner().invoke(app, [*arguments, "--url", stack.url, "--out", str(out)])
        assert ran.exit_code == 0, ran.output
        [drawn] = out.glob("*.png")
        assert drawn.read_bytes() == client.image(job.id)
        stored = tmp_path / "var" / "artifacts" / job.id / "input.png"
        assert stored.exists()
        client.delete(job.id)
        assert not stored.exists()
