"""The supervisor: what it refuses, what it notices, and that it leaves nothing behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollover import Client, RolloverError
from rollover.processes import Child, Command
from rollover.serve import Stack, StackError, StackSettings, port_of
from tests.conftest import ENDLESS
from tests.models.conftest import make_flux

ROOT = Path(__file__).parents[2]


@dataclass
class Serving:
    """A `rollover serve` that is starting up."""

    process: "subprocess.Popen[str]"
    output: list[str] = field(default_factory=list[str])

    def pids(self) -> dict[str, int]:
        """Read on until all children are started; their process ids by name."""
        found: dict[str, int] = {}
        assert self.process.stdout
        for line in self.process.stdout:
            self.output.append(line)
            if started := re.match(r"started (\S+) \(pid (\d+)\)", line):
                found[started[1]] = int(started[2])
            if len(found) == 4:
                return found
        raise AssertionError(f"it ended: {self.output}")

    def url(self) -> str:
        """Read on until the stack is ready; where it listens."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output.append(line)
            if ready := re.match(r"Rollover is ready on (\S+)", line):
                return ready[1]
        raise AssertionError(f"it ended: {self.output}")

    def until(self, *said: str) -> None:
        """Read on until it has said all of this."""
        assert self.process.stdout
        while not all(any(words in line for line in self.output) for words in said):
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.output}"
            self.output.append(line)

    def end(self, seconds: float = 120) -> str:
        """Wait for it to end; everything it wrote."""
        rest, _ = self.process.communicate(timeout=seconds)
        return "".join(self.output) + rest


@pytest.fixture
def serve(short_dir: Path) -> Iterator[Callable[..., Serving]]:
    """Start `rollover serve` on a free port with data of its own."""
    started: list[Serving] = []

    def start(**environment: str) -> Serving:
        process = subprocess.Popen(
            [sys.executable, "-m", "rollover", "serve", "--port", "0", "--data-dir", str(short_dir)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(Serving(process))
        return started[-1]

    yield start
    for serving in started:
        serving.process.kill()
        serving.process.communicate()


def gone(pids: dict[str, int], seconds: float = 60) -> bool:
    """Whether none of these processes lives, zombies aside."""
    end = time.monotonic() + seconds
    while any(map(alive, pids.values())):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_port_in_use_is_named_and_nothing_is_started(short_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said: list[str] = []
        with pytest.raises(StackError, match=rf"port {port}: Address already in use\..*ROLLOVER_PORT"):
            Stack(StackSettings(port=port, data_dir=short_dir), said.append).__enter__()
    assert said == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_port_found_free_is_the_apis_before_it_listens() -> None:
    with port_of(StackSettings(port=0)) as held, socket.socket() as other:
        address = held.getsockname()
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(address)
        with socket.create_server(address):  # as the API does
            socket.create_connection(address).close()


@pytest.mark.parametrize("port", [70000, -1])
def test_a_port_that_does_not_exist_is_refused(short_dir: Path, port: int) -> None:
    with pytest.raises(StackError, match=rf"no port {port}.*ROLLOVER_PORT.*65535"):
        Stack(StackSettings(port=port, data_dir=short_dir), print).__enter__()


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nope"])
def test_a_data_directory_that_cannot_be_made_is_refused(short_dir: Path, name: str) -> None:
    (short_dir / "file").touch()
    with pytest.raises(StackError, match=rf"{name}: .*--data-dir or ROLLOVER_DATA_DIR"):
        Stack(StackSettings(port=0, data_dir=short_dir / name), print).__enter__()


def test_a_data_directory_in_use_is_refused(serve: Callable[..., Serving], short_dir: Path) -> None:
    first = serve()
    first.pids()
    with pytest.raises(StackError, match=rf"in use by another `rollover serve` \(pid {first.process.pid}\)"):
        Stack(StackSettings(port=0, data_dir=short_dir), print).__enter__()


def test_a_dead_child_is_reported_and_ends_the_rest(serve: Callable[..., Serving]) -> None:
    serving = serve()
    pids = serving.pids()
    os.kill(pids["api"], signal.SIGKILL)
    output = serving.end()
    assert serving.process.returncode == 1
    assert "rollover: api was killed by SIGKILL" in output
    assert gone(pids)


def test_a_worker_that_cannot_load_its_model_is_quoted(serve: Callable[..., Serving]) -> None:
    serving = serve(ROLLOVER_MODEL_PATHS="shapes=/nowhere")
    output = serving.end()
    assert serving.process.returncode == 1
    assert "rollover: worker-shapes exited with code 1" in output
    assert "the model cannot be loaded: no model at /nowhere" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_stops_everything(
    serve: Callable[..., Serving], number: signal.Signals
) -> None:
    serving = serve()
    pids = serving.pids()
    serving.process.send_signal(number)
    output = serving.end()
    assert output.splitlines()[-1] == "stopped"
    assert serving.process.returncode == 0
    assert gone(pids)


def test_ctrl_c_gives_the_running_job_back_and_the_next_start_goes_on_with_it(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    settings = {"ROLLOVER_MODEL_PATHS": f"shapes={make_flux(tmp_path)}", "ROLLOVER_MAX_NFE": str(ENDLESS)}
    serving = serve(**settings)
    pids = serving.pids()
    with Client(serving.url()) as client:
        job = client.submit("a red circle", reward="brightness", nfe=ENDLESS, held_out=[])
        while client.get(job.id).progress.nfe_spent < 25:
            time.sleep(0.02)
    serving.process.send_signal(signal.SIGINT)
    assert serving.end().splitlines()[-1] == "stopped"
    assert serving.process.returncode == 0
    assert gone(pids)
    again = serve(**settings)
    pids = again.pids()
    with Client(again.url()) as client:
        while client.get(job.id).raw["attempts"] < 2:
            time.sleep(0.02)
        client.cancel(job.id)
        events = list(client.events(job.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    rare = [event.type for event in events if event.type not in {"candidate", "level"}]
    assert rare == ["queued", "started", "started", "resumed", "canceled"]
    again.process.kill()
    assert gone(pids)  # a worker that is ready ends although its Redis went first


def test_whatever_is_killed_is_started_again(serve: Callable[..., Serving], tmp_path: Path) -> None:
    killed = ("worker-shapes", "valkey", "api")
    serving = serve(ROLLOVER_MODEL_PATHS=f"shapes={make_flux(tmp_path)}")
    pids = serving.pids()
    with Client(serving.url()) as client:
        job = client.submit("a red circle", reward="brightness", nfe=60, held_out=[])
        for name in killed:
            os.kill(pids[name], signal.SIGKILL)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(RolloverError):
                if client.get(job.id).ended:
                    break
            time.sleep(0.2)
        assert client.get(job.id).status == "succeeded"
    serving.until(*(f"{name} was killed by SIGKILL; started it again" for name in killed))
    serving.process.send_signal(signal.SIGINT)
    assert serving.end().splitlines()[-1] == "stopped"


class Ended(Child):
    """A child that has ended."""

    def __init__(self, code: int, age: float) -> None:
        self.command = Command("it", [], {}, Path(os.devnull), 0)
        self._log_start, self._moved, self.code, self.years = 0, False, code, age

    @property
    def age(self) -> float:
        return self.years

    def exit_code(self) -> int:
        return self.code

    def kill(self) -> None:
        """Do nothing: it has."""


@pytest.mark.parametrize(("code", "age", "given_up"), [(1, 0, True), (-9, 0, False), (1, 60, False)])
def test_only_what_keeps_ending_itself_is_given_up(
    monkeypatch: pytest.MonkeyPatch, code: int, age: float, *, given_up: bool
) -> None:
    monkeypatch.setattr("rollover.serve.time.sleep", lambda _: None)
    monkeypatch.setattr("rollover.serve.Child", lambda _: Ended(code, age))
    monkeypatch.setattr(Ended, "pid", 1)
    stack = Stack(StackSettings(), lambda _: None)
    stack._children.append(Ended(code, age))  # noqa: SLF001 -- nothing was started
    for _ in range(2):
        stack.mend()
    if given_up:
        with pytest.raises(StackError, match="it exited with code 1"):
            stack.mend()
    else:
        stack.mend()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_killed_supervisor_leaves_no_orphans(serve: Callable[..., Serving]) -> None:
    serving = serve()
    pids = serving.pids()
    serving.process.kill()
    assert gone(pids)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(StackError, match=r"^ROLLOVER_PORT is 'many', which is no number\.$"):
        StackSettings.from_environment({"ROLLOVER_PORT": "many"})


def test_settings_come_from_the_environment() -> None:
    environment = {
        "ROLLOVER_HOST": "::1",
        "ROLLOVER_PORT": "9",
        "ROLLOVER_DATA_DIR": "/data",
        "ROLLOVER_MODELS": "shapes, other",
        "ROLLOVER_REDIS_URL": "redis://there",
        "ROLLOVER_ARTIFACTS_URL": "s3://bucket",
        "ROLLOVER_START_TIMEOUT": "5",
    }
    assert StackSettings.from_environment(environment) == StackSettings(
        "::1", 9, Path("/data"), ("shapes", "other"), "redis://there", "s3://bucket", 5.0
    )
    assert StackSettings.from_environment({}) == StackSettings()
