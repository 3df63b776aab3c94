"""The whole stack as `rollover serve` starts it, around a tiny model of random weights."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rollover import Client
from rollover.serve import Stack, StackSettings
from tests.conftest import ENDLESS
from tests.models.conftest import make_flux


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("tiny-shapes"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    with ExitStack() as exits:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
            patch.setenv("ROLLOVER_DEVICE", "cpu")
            patch.setenv("ROLLOVER_MAX_NFE", str(ENDLESS))
            settings = StackSettings(port=0, data_dir=tmp_path_factory.mktemp("var"))
            stack = exits.enter_context(Stack(settings, print))
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client
