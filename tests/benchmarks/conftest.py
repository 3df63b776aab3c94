"""The bundled model, loaded before a test looks at what it leaves behind."""

import pytest

from benchmarks.setup import backend


@pytest.fixture(scope="session", autouse=True)
def _loaded() -> None:
    # torch names a folder for its compiler in the environment when diffusers first asks.
    backend()
