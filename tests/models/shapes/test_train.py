"""The training program runs from nothing to a repository that diffusers loads; learning takes longer."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from models.shapes.detector import Detector
from models.shapes.train.__main__ import Recipe, train
from models.shapes.train.reflow import Round

# Each stage is short; on a machine with much else to do all of them together are not.
pytestmark = pytest.mark.timeout(600)

TINY = Recipe(
    autoencoder_steps=2,
    scenes=64,
    flow_steps=2,
    reflow_rounds=(Round(pairs=64, steps=2), Round(pairs=64, steps=2, corrected=False)),
    undistil_steps=2,
    undistil_scenes=64,
    pictures=64,
    detector_steps=2,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    train(TINY, folder)
    return folder


def test_every_stage_runs_from_nothing(work: Path) -> None:
    pipeline = FluxPipeline.from_pretrained(work / "repository", dtype=torch.float32)
    size = sum(path.stat().st_size for path in (work / "repository").rglob("*") if path.is_file())
    assert pipeline.transformer.config.in_channels == 16
    FluxPipeline.from_pretrained(work / "base", dtype=torch.float32)
    assert size < 20e6
    Detector().load_state_dict(load_file(work / "detector.safetensors"))


def test_reflow_goes_on_from_the_flow_and_a_second_call_trains_nothing(work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("checkpoint.pt")}
    assert len(before) == 4
    train(TINY, work)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    stages = [
        torch.load(work / stage / "checkpoint.pt", weights_only=True)["ema"]
        for stage in ("flow", "reflow-1", "reflow-2", "undistil")
    ]
    for one, after in pairwise(stages):
        assert 0 < max((one[name] - after[name]).abs().max().item() for name in one) < 0.1
