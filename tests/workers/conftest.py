"""A warm engine on a tiny FLUX.1, and a desk that submits to it as the API does and reads what came of it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import constants
from redis import Redis
from torch import Tensor

from app.enqueue import Enqueuer
from contracts.events import Event, decode
from contracts.jobs import Record, Status, hash_fields
from contracts.keys import events_key, job_key
from contracts.resolution import accept
from contracts.search import AUTHORS
from contracts.settings import Settings
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from models.rewards.brightness import Brightness
from models.rewards.protocol import Facts
from tests.conftest import ENDLESS
from tests.models.conftest import make_flux
from tests.workers.hub_server import BESIDES, ENTRY, REPO, Hub, running
from workers.engine import Engine
from workers.execution import Runner
from workers.headroom import Headroom
from workers.hold import connect
from workers.settings import WorkerSettings
from workers.store import ArtifactStore

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("tiny-shapes"))


@pytest.fixture(scope="session")
def repository(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX.1 as a repository has it, with much beside that a model does not need."""
    folder = tmp_path_factory.mktemp("hub") / "flux"
    shutil.copytree(tiny_model, folder)
    for name, text in BESIDES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, a cache that is empty, and a catalogue with the model; no token."""
    (tmp_path / "models.toml").write_text(ENTRY)
    monkeypatch.setenv("ROLLOVER_CATALOGUE", str(tmp_path / "models.toml"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running(Hub({REPO: repository})) as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", started.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield started


@pytest.fixture(scope="session")
def warm_engine(tiny_model: Path) -> Engine:
    return Engine.load("shapes", WorkerSettings(device="cpu", model_paths={"shapes": tiny_model}))


@pytest.fixture
def engine(warm_engine: Engine) -> Engine:
    """The warm engine with a table of rewards that a test may change."""
    return replace(warm_engine, rewards={}, headroom=Headroom())


@dataclass(frozen=True)
class Desk:
    """Submits as the API does, runs in this process, reads what came of it."""

    redis: Redis
    settings: Settings
    runner: Runner

    def submit(self, **body: object) -> str:
        given: dict[str, Any] = {"prompt": "a red circle", "reward": "brightness", "held_out": [], "seed": 1}
        given |= {"budget": {"nfe": 60}} | body
        if given.get("search", {}).get("strategy", "rbf") == "rbf":
            # Several chains, and a pool of several batches.
            given["search"] = {**AUTHORS, **given.get("search", {})}
        raw = Redis.from_url(self.settings.redis_url or "")
        with raw:
            return (
                Enqueuer(raw, self.settings).submit(Record.new(accept(given, caps=self.settings.caps)), "").id
            )

    def run(self, **body: object) -> Record:
        job = self.submit(**body)
        self.runner.run(job)
        return self.record(job)

    def record(self, job: str) -> Record:
        fields: Any = self.redis.hgetall(job_key(job))
        return Record.from_hash(fields)

    def texts(self, job: str) -> list[str]:
        entries: Any = self.redis.xrange(events_key(job))
        return [fields["event"] for _, fields in entries]

    def events(self, job: str) -> list[Event]:
        return [decode(text) for text in self.texts(job)]

    def file(self, path: str) -> Path:
        return Path(self.settings.artifacts) / path


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, data_dir=tmp_path, max_nfe=ENDLESS)


@pytest.fixture
def runner(settings: Settings, engine: Engine) -> Iterator[Runner]:
    connection = connect(settings.redis_url or "")
    with connection:
        yield Runner(connection, engine, ArtifactStore.open(settings.artifacts), "worker-1", settings)


@pytest.fixture
def desk(redis: Redis, settings: Settings, runner: Runner) -> Desk:
    return Desk(redis, settings, runner)


@pytest.fixture
def start(settings: Settings, tiny_model: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a worker process on a Redis; whatever still runs afterwards is killed."""
    environment = {
        **os.environ,
        "ROLLOVER_DATA_DIR": str(tmp_path),
        "ROLLOVER_MODEL_PATHS": f"shapes={tiny_model}",
        "ROLLOVER_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with ExitStack() as started, (tmp_path / "workers.log").open("wb") as log:

        def start(
            redis_url: str | None = None, *, program: str = "workers", **more: str
        ) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [sys.executable, "-m", program, "--model", "shapes"],
                cwd=ROOT,
                env={**environment, "ROLLOVER_REDIS_URL": redis_url or settings.redis_url or "", **more},
                stdout=log,
                stderr=log,
            )
            started.callback(process.wait)
            started.callback(process.kill)
            return process

        yield start


def wait_for(condition: Callable[[], object], seconds: float = 120) -> float:
    """Wait until it holds; the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def cancel(desk: Desk, job: str) -> None:
    """As the API does with a running job: no message is sent that could be missed."""
    args = write_args(allowed=[Status.RUNNING], fields=hash_fields(cancel_requested=True))
    desk.redis.eval(WRITE_SCRIPT, 2, *write_keys(job), *args)


class Gate(Brightness):
    """Brightness that waits: a test lets so many calls through and knows where the search stands."""

    def __init__(self, open_for: int = 0) -> None:
        super().__init__()
        self.passes = threading.Semaphore(open_for)
        self.reached = threading.Semaphore(0)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.reached.release()
        assert self.passes.acquire(timeout=30)
        return super().score(images, prompt)


class KilledError(BaseException):
    """What a kill -9 is to the program: nothing that it handles."""


class Deadly(Brightness):
    """Brightness that ends the execution at a call, by default as if its process were killed."""

    def __init__(self, at_call: int, error: type[BaseException] = KilledError) -> None:
        super().__init__()
        self.calls_left, self.error = at_call, error

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise self.error
        return super().score(images, prompt)


class Faulty:
    """A reward that raises, or gives a number that is none."""

    facts: ClassVar[Facts] = Facts(minimum=None, maximum=None, differentiable=False, source="a test")

    def __init__(self, fault: Exception | float) -> None:
        self.fault = fault

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002
        if isinstance(self.fault, Exception):
            raise self.fault
        return torch.full((len(images),), self.fault)
