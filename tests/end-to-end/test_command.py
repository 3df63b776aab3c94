"""The `rollover` command against the running stack, and the demonstration that starts its own."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from contracts.jobs import id_at
from models.shapes.captions import CALIBRATION
from rollover import Client
from rollover.cli import app
from rollover.display import follow
from rollover.serve import Stack
from tests.conftest import DAY, ENDLESS


def run(stack: Stack, *arguments: str, code: int = 0) -> str:
    """Run the command; what it wrote to both streams."""
    result = CliRunner(env={"ROLLOVER_URL": stack.url, "COLUMNS": "200"}).invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def paths(output: str) -> tuple[Path, Path]:
    """The image and the trace that were announced."""
    image, trace = (re.search(rf"^{name}\s+(\S+)$", output, re.MULTILINE) for name in ("image", "trace"))
    assert image
    assert trace
    return Path(image[1]), Path(trace[1])


def number(output: str, name: str) -> float:
    found = re.search(rf"^{name}\s+([-\d.]+)", output, re.MULTILINE)
    assert found
    return float(found[1])


def check(output: str, nfe: int) -> None:
    image, trace = paths(output)
    with Image.open(image) as picture:
        assert picture.size == (64, 64)
    rewards = [json.loads(line)["reward"] for line in trace.read_text().splitlines()]
    assert len(rewards) == number(output, "NFE spent") == nfe
    assert number(output, "first reward") == pytest.approx(rewards[0], abs=1e-4)
    assert number(output, "final reward") == pytest.approx(max(rewards), abs=1e-4)
    assert max(rewards) > rewards[0]


def test_generate_writes_the_image_and_the_trace(stack: Stack, tmp_path: Path) -> None:
    options = ["--reward", "brightness:2", "--reward", "sharpness:-0.1", "--nfe", "60", "--seed", "3"]
    more = ["--held-out", "colorfulness", "--search", "chains=1", "--budget", "patience=1000"]
    output = run(stack, "generate", "a red circle", *options, *more, "--out", str(tmp_path))
    check(output, 60)
    assert "held out: colorfulness" in output


def test_generate_says_why_it_spent_less(stack: Stack, tmp_path: Path) -> None:
    arguments = ["-r", "brightness", "--nfe", "60", "--budget", "target_reward=0", "-o", str(tmp_path)]
    output = run(stack, "generate", "a red circle", *arguments)
    assert re.search(
        r"^NFE spent +12 of 60 \(48 unspent: the best reward reached the target of 0\)$", output, re.MULTILINE
    )


def test_a_refused_request_is_one_message(stack: Stack) -> None:
    output = run(stack, "generate", "a red circle", "--reward", "scene_mach", code=1)
    assert "rollover: " in output
    assert "Did you mean 'scene_match'?" in output
    assert "Traceback" not in output


def test_a_failed_job_is_exit_code_1(stack: Stack, tmp_path: Path) -> None:
    output = run(
        stack, "generate", "good morning", "-r", "scene_match", "--nfe", "60", "-o", str(tmp_path), code=1
    )
    assert "reward_failed" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--reward", "brightness:much"], ["--search", "chains"]])
def test_an_option_that_cannot_be_read_is_refused(stack: Stack, option: list[str]) -> None:
    run(stack, "generate", "a red circle", *option, code=2)


def test_status_and_cancel(stack: Stack, client: Client) -> None:
    job = client.submit("a red circle", reward="brightness", nfe=ENDLESS)
    assert re.search(r"^status +(queued|running)$", run(stack, "status", job.id), re.MULTILINE)
    run(stack, "cancel", job.id)
    client.wait(job.id, within=60)
    assert re.search(r"^status +canceled$", run(stack, "status", job.id), re.MULTILINE)
    assert "generation_not_found" in run(stack, "status", "gen_none", code=1)


def test_models_and_rewards(stack: Stack) -> None:
    assert re.search(r"shapes.*True", run(stack, "models"))
    assert "incompressibility" in run(stack, "rewards")


def test_calibrate_writes_what_it_measured(stack: Stack, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
        options = ["--reward", "brightness", "--noises", "3", "--out", str(out)]
        run(stack, "calibrate", "shapes", *options)
    assert json.loads(out.read_text(encoding="utf-8"))["levels"][0]["prompts"] == len(CALIBRATION)


def test_the_bar_shows_nfe_level_and_best_reward(client: Client) -> None:
    job = client.submit("a red circle", reward="brightness", nfe=60, held_out=[])
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    ended = follow(client, job, screen)
    assert ended.result
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())  # type: ignore[attr-defined]
    assert f"60/60 NFE  level 10  best {ended.result.images[0].reward:.4f}" in text
    assert "completed" in text


def test_the_demonstration_starts_its_own_stack_improves_its_picture_and_stops(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A generation that another server keeps, and the demonstration's Redis knows nothing of.
    others = tmp_path / "others" / id_at(time.time() - 40 * DAY)
    others.mkdir(parents=True)
    (others / "0.png").touch()
    monkeypatch.setenv("ROLLOVER_ARTIFACTS_URL", str(others.parent))
    # The bundled model, its learned reward and the default prompt: what `make demo` shows.
    output = run(stack, "demo", "--nfe", "60", "--out", str(tmp_path))
    check(output, 60)
    assert list(others.parent.rglob("*")) == [others, others / "0.png"]
    children = [int(pid) for pid in re.findall(r"^started \S+ \(pid (\d+)\)", output, re.MULTILINE)]
    assert len(children) == 4
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
