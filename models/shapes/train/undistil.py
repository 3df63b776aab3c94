"""Make an undistilled flow of the reflowed one: what most published flow models are like.

The flow is fitted on with noise that is independent of the pictures (plain flow matching, Lipman et al.,
arXiv 2210.02747). The straight paths bend back: at t = 1 the prediction is the mean of all that a caption
allows, and tells nothing of where the noise leads. Counting and colours, which took long to learn, stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from models.shapes.train import flow
from models.shapes.train.flow import Batch, Pool, build_pool, fit
from models.shapes.train.networks import Flow, pack

STEPS = 900
SCENES = 20_000
PEAK_RATE = 1.5e-3


def times(count: int, generator: torch.Generator) -> Tensor:
    """Training times [count]: half stratified over (0, 1), half logit-normal (arXiv 2403.03206)."""
    stratified = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    middle = torch.randn(count, generator=generator).sigmoid()
    return torch.where(torch.rand(count, generator=generator) < 0.5, stratified, middle)


def batches(pool: Pool, size: int, seed: int) -> Iterator[Batch]:
    """Batches of scenes, each with a noise that knows nothing of it, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        index = torch.randint(len(pool.latents), (size,), generator=generator)
        data = pack(pool.latents[index].float())
        noise = torch.randn(data.shape, generator=generator)
        t = times(size, generator)
        yield torch.lerp(data, noise, t[:, None, None]), t, pool.text[index], noise - data, pool.tokens[index]


def undistil(net: Flow, autoencoder: AutoencoderKL, out: Path, *, steps: int, scenes: int) -> Flow:
    """Fit `net` on with independent noise; checkpoints go to `out`, from where an interrupted run resumes."""
    return fit(
        lambda seed: batches(build_pool(autoencoder, scenes, seed=2), flow.BATCH, seed),
        autoencoder,
        out,
        steps=steps,
        peak=PEAK_RATE,
        loss=functional.mse_loss,
        start=net,
    )
