"""Measure a flow: exact match at 1, 4 and 10 steps, by the judge."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from models.shapes.judge import accepts
from models.shapes.train.networks import Flow, text_ids, unpack
from models.shapes.world import parse


def generator_noise(count: int, seed: int) -> Tensor:
    """Packed noise [count, 64, 16]."""
    return torch.randn(count, 64, 16, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def sample(flow: Flow, noise: Tensor, text: Tensor, steps: int) -> Tensor:
    """Euler steps from t = 1 to 0 on a uniform grid: packed data latents."""
    x = noise
    for i in range(steps):
        t = torch.full((len(x),), 1 - i / steps)
        x = x - flow(x, t, text)[0] / steps
    return x


@torch.inference_mode()
def decode(autoencoder: AutoencoderKL, tokens: Tensor) -> Tensor:
    """Images [b, 3, 64, 64] in [0, 1] from packed latents."""
    latents = unpack(tokens) / autoencoder.config.scaling_factor + autoencoder.config.shift_factor
    return ((autoencoder.decode(latents).sample + 1) / 2).clamp(0, 1)


def exact_rates(
    flow: Flow, autoencoder: AutoencoderKL, prompts: list[str], step_counts: tuple[int, ...] = (1, 4, 10)
) -> dict[int, float]:
    """Share of prompts whose picture the judge accepts, for each number of steps, at one noise each."""
    noise, text = generator_noise(len(prompts), seed=7), text_ids(prompts)
    rates = {}
    for steps in step_counts:
        images = decode(autoencoder, sample(flow, noise, text, steps)).numpy()
        verdicts = [accepts(image, parse(prompt)) for image, prompt in zip(images, prompts, strict=True)]
        rates[steps] = sum(verdicts) / len(verdicts)
    return rates
