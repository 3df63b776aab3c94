"""A plain request to a model that shifts its times comes to the picture of the model's own pipeline."""

from pathlib import Path
from typing import Any

import torch

from contracts.resolution import accept
from contracts.settings import Settings
from sampling.state import draw_noise
from tests.models.tiny import FAMILIES, make
from workers.engine import Engine
from workers.settings import WorkerSettings

ENTRY = """
[shapes]
folder = "dev"
width = { minimum = 16, maximum = 64, multiple = 16, default = 48 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
guidance = { minimum = 1.0, maximum = 10.0, default = 3.5 }
reward = "brightness"
inputs = { max_sequence_length = 16 }
"""


def test_base_draws_what_the_pipeline_draws(tmp_path: Path) -> None:
    pipeline: Any = make(FAMILIES["FLUX.1 dev"], tmp_path / "dev")
    (tmp_path / "models.toml").write_text(ENTRY)
    settings = Settings(catalogue=tmp_path / "models.toml")
    engine = Engine.load("shapes", WorkerSettings(device="cpu"), entries=settings.entries)
    body = {"prompt": "two red circle", "search": {"strategy": "base"}, "sampler": {"steps": 6}}
    search = engine.open(accept(body, settings.served, settings.caps))
    *_, last = search.rounds()
    [picture] = pipeline(
        prompt=body["prompt"],
        width=48,
        height=32,
        guidance_scale=3.5,
        num_inference_steps=6,
        max_sequence_length=16,
        latents=draw_noise(search.problem, [(0, 0, 0)]),
        output_type="pt",
    ).images
    assert last.state.ledger.nfe_spent == 6
    assert last.state.best[0].t_next == pipeline.scheduler.sigmas[-2].item() > 0.2
    torch.testing.assert_close(last.state.best[0].image, picture, rtol=0, atol=0.01 / 255)
