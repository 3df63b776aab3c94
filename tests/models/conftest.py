"""Tiny models of every family, made once for the whole run, and a FLUX.1 to break."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.models.tiny import FAMILIES, flux_parts, make


def make_flux(folder: Path, *, guidance_embeds: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny FLUX.1 with random weights, the same ones each time."""
    parts = partial(flux_parts, guidance_embeds=guidance_embeds)
    make(replace(FAMILIES["FLUX.1 schnell"], parts=parts), folder, dtype)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny FLUX.1 (schnell's kind: no guidance embedding)."""
    return make_flux(tmp_path_factory.mktemp("tiny-flux"))


@pytest.fixture(scope="session")
def flux_maker() -> Callable[..., Path]:
    """The function that saves a tiny FLUX.1 in a folder."""
    return make_flux
