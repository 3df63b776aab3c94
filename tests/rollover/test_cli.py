"""The `rollover` command against a real server whose jobs a hand moves along: what goes wrong, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from contracts.settings import Settings
from rollover import Client
from rollover.cli import app
from tests.app.conftest import serving
from tests.app.hand import PNG, Hand
from tests.rollover.unreliable import HTML, unreliable

ROOT = Path(__file__).parents[2]
Hands = Callable[[str], Hand]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(server: str) -> Iterator[Start]:
    """Start `rollover generate` as a process of its own."""
    with ExitStack() as started:

        def start(*arguments: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-m", "rollover", "generate", "a red circle", "--url", server, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # A shell that runs the suite in its background has Ctrl-C ignored, and children inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
            started.callback(process.communicate)
            started.callback(process.kill)
            return process

        yield start


def test_a_program_that_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rollover.cli.find_spec", lambda package: None if package == "huggingface_hub" else True
    )
    said = refused("models", "pull", "shapes", code=1)
    assert said == "rollover: This needs pip install 'rollover[worker]'\n"
    monkeypatch.setattr("rollover.cli.find_spec", lambda package: None if package == "workers" else True)
    assert "no workers in it: run it where they are" in refused("doctor", code=1)


def read_to(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Read what a process writes until a line matches; the group."""
    assert process.stdout
    for line in process.stdout:
        if found := re.match(pattern, line):
            return found[1]
    raise AssertionError("it ended")


def refused(*arguments: str, code: int) -> str:
    """What the command says when it refuses."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nope"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_search(
    client: Client, server: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / name)
    assert f"rollover: Cannot write into {out}: " in refused(
        "generate", "a red circle", "--url", server, "--out", out, code=1
    )
    assert client.list().items == ()


def test_an_image_that_cannot_be_written_can_still_be_fetched(
    client: Client, start: Start, hand: Hands, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start("--out", str(out))
    moved = hand(read_to(process, r"id +(gen_\S+)$"))
    moved.start()
    out.rmdir()
    out.touch()
    moved.finish()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"rollover: Cannot write into {out}: " in said
    url = re.search(rf"The server keeps generation {moved.id}: \S+ \S+ \S+ (\S+)$", said, re.MULTILINE)
    assert url, said
    assert httpx.get(url[1], trust_env=False).content == PNG
    assert "Traceback" not in said
    assert client.get(moved.id).status == "succeeded"


def test_ctrl_c_after_the_end_still_writes_the_result(
    client: Client, start: Start, hand: Hands, tmp_path: Path
) -> None:
    process = start("--out", str(tmp_path))
    moved = hand(read_to(process, r"id +(gen_\S+)$"))
    moved.start()
    read_to(process, "(started)")
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # a signal may come later than it is sent
    moved.finish()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert "the best so far is kept" in said
    assert process.returncode == 0, said
    assert (tmp_path / f"{moved.id}-0.png").read_bytes() == PNG
    assert client.get(moved.id).status == "succeeded"


@pytest.mark.parametrize(
    "option",
    [
        ["--reward", "scene_match:nan"],
        ["--reward", "scene_match:inf"],
        ["--budget", "target_reward=NaN"],
        ["--budget", "seconds=1e999"],
        ["--search", "weights=[1, -Infinity]"],
    ],
)
def test_a_number_that_is_none_is_refused(
    client: Client, server: str, option: list[str], tmp_path: Path
) -> None:
    arguments = ["generate", "a red circle", "--url", server, "--out", str(tmp_path), *option]
    assert "finite" in refused(*arguments, code=2)
    assert client.list().items == ()


def test_parameters_of_a_reward_are_sent_with_it(valkey_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=valkey_url, data_dir=tmp_path, reward_paths={"grounded_count": tmp_path})
    with serving(settings) as url:
        arguments = [
            "generate",
            "dogs",
            "--url",
            url,
            "--quote",
            "-r",
            "brightness",
            "-r",
            "grounded_count:2",
        ]
        quoted = CliRunner().invoke(
            app, [*arguments, "--reward-params", 'grounded_count={"counts": {"dog": 2}}']
        )
        assert quoted.exit_code == 0, quoted.output
        said = refused(*arguments, "--reward-params", 'grounded_count={"counts": {"dog": -2}}', code=1)
        assert "/reward/1/params/counts/dog" in said


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ('grounded_count={"counts": {"dog": 2}}', "name the reward too, by --reward grounded_count"),
        ("brightness={counts: 2}", "the parameters of 'brightness' are not a JSON object"),
        ("brightness", "expected KEY=VALUE"),
    ],
)
def test_parameters_that_cannot_be_sent_are_refused(params: str, why: str) -> None:
    said = refused("generate", "dogs", "--reward", "brightness", "--reward-params", params, code=2)
    assert why in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://[bad"])
def test_an_address_that_is_none_is_one_message(url: str) -> None:
    assert refused("models", "--url", url, code=1).startswith(
        f"rollover: {url!r} is not the address of a server"
    )


def test_another_program_on_the_port_is_one_message(server: str) -> None:
    with unreliable(server, HTML) as proxy:
        said = refused("models", "--url", proxy.url, code=1)
    assert said.startswith(f"rollover: {proxy.url}/v1/models answered HTTP 200 with text/html")


@pytest.mark.usefixtures("redis_url")  # empty: the test before may have made keys
def test_the_range_of_every_reward_is_shown(server: str) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["rewards", "--url", server])
    assert re.search(r"scene_match +│ 0 to 1 +│ True ", result.output), result.output
    assert re.search(r"pickscore +│ any number +│ False ", result.output), result.output
    ranges = re.findall(r"^│ \w+ +│ ([^│]+?) +│", result.output, re.MULTILINE)
    assert set(ranges) == {"0 to 1", "0 and up", "up to 0", "any number", "0 to 2.5", "-1 to 1"}
