"""An engine whose reward does, at one of its calls, what a test wrote into a file of the data directory."""

import contextlib
import json
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import registry
from models.rewards.brightness import Brightness
from workers import engine_process
from workers.messages import Asking, Loaded, Spec

FILE = "sabotage.json"
NAME = "colorfulness"
"""The reward that is not what it seems."""
plan: Path | None = None


def order(folder: Path, **plan: object) -> None:
    """Have the reward `die`, `hang`, `fault`, be `slow` or `wait` at call number `at`; 0: as it is loaded."""
    (folder / FILE).write_text(json.dumps(plan))


def ordered() -> dict[str, Any]:
    """What stands in the file, which a test may take away at any moment."""
    with contextlib.suppress(FileNotFoundError):
        if plan:
            return json.loads(plan.read_text())
    return {}


def engine(pipe: "Connection[Any, Any]", spec: Spec) -> None:
    """What `workers.resident.run_engine` does, with the sabotaged reward."""
    global plan  # noqa: PLW0603 -- a reward is made with its device and nothing else
    plan = spec.settings.data_dir / FILE
    registry.REWARDS = {**registry.REWARDS, NAME: "tests.workers.sabotage:Sabotaged"}
    engine_process.main(pipe, spec)
    os._exit(0)


def never_loaded(_pipe: "Connection[Any, Any]", _spec: Spec) -> None:
    """Load without end."""
    misbehave("hang")


def never_warm(pipe: "Connection[Any, Any]", _spec: Spec) -> None:
    """Load, and wait for a reward without end."""
    pipe.send(Loaded())
    pipe.send(Asking(NAME))
    misbehave("hang")


class Sabotaged(Brightness):
    """Brightness, for `calls` calls."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.calls = 0
        self._misbehave(ordered())

    def score(self, images: Tensor, prompt: str) -> Tensor:
        self.calls += 1
        told = ordered()
        if "slow" in told:
            time.sleep(told["slow"])
        self._misbehave(told)
        return super().score(images, prompt)

    def _misbehave(self, told: dict[str, Any]) -> None:
        if told.get("at") == self.calls:
            if told.get("once") and plan:
                plan.unlink()
            misbehave(told["how"])


def misbehave(how: str) -> None:
    """Do it."""
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hang":
        time.sleep(3600)
    elif how == "wait":
        while ordered():
            time.sleep(0.01)
    elif how == "fault":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)
