"""Train the autoencoder: 64 x 64 RGB to 4 latent channels at 16 x 16."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

import copy
import math
import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from models.shapes.world import IMAGE_SIZE, place, render, training_description

STEPS = 1000
BATCH = 32
KL_WEIGHT = 2e-4
EMA_DECAY = 0.998


def build() -> AutoencoderKL:
    """The untrained network; no mid attention and no quant convolutions keep it cheap and local."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def images(count: int, rng: np.random.Generator) -> Tensor:
    """Rendered training scenes in [-1, 1]: [count, 3, 64, 64]."""
    batch = np.stack([render(place(training_description(rng), rng)) for _ in range(count)])
    return torch.from_numpy(batch) * 2 - 1


def train(steps: int, seed: int) -> AutoencoderKL:
    """L1 + 2 L2 + KL; returns the averaged weights, with scale and shift in their config."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = build()
    ema = copy.deepcopy(net).eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: _rate(i, steps))
    started = time.monotonic()
    for i in range(steps):
        target = images(BATCH, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # a third faster than fp32 on CPUs with AVX512-BF16
            posterior = net.encode(target).latent_dist
            output = net.decode(posterior.sample()).sample
        error = output.float() - target
        loss = (
            error.abs().mean() + 2 * error.square().mean() + KL_WEIGHT * posterior.kl().float().mean() / 1024
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        _average(ema, net, min(EMA_DECAY, (i + 1) / (i + 10)))
        if (i + 1) % 100 == 0:
            print(
                f"autoencoder {i + 1}/{steps} loss {loss:.4f} {time.monotonic() - started:.0f} s", flush=True
            )
    calibrate(ema, images(256, rng))
    return ema


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _average(ema: torch.nn.Module, net: torch.nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)


@torch.no_grad()
def calibrate(net: AutoencoderKL, batch: Tensor) -> None:
    """Store the latent mean and scale in the config, as FLUX's autoencoder does, and print the PSNR."""
    latents = net.encode(batch).latent_dist.mode()
    shift = float(latents.mean())
    net.register_to_config(shift_factor=shift, scaling_factor=float(1 / (latents - shift).std()))
    error = functional.mse_loss(net.decode(latents).sample.clamp(-1, 1), batch)
    noised = latents + 0.1 * latents.std() * torch.randn_like(latents)
    noised_error = functional.mse_loss(net.decode(noised).sample.clamp(-1, 1), batch)
    print(
        f"PSNR {_psnr(error):.1f} dB, from latents with 10 % noise {_psnr(noised_error):.1f} dB", flush=True
    )


def _psnr(mean_square_error: Tensor) -> float:
    return float(10 * torch.log10(4 / mean_square_error))
