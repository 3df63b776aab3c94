"""Train the flow: transformer and text encoders on encoded scenes with coupled noise."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.shapes.train.coupling import Layouts, layouts, noise_for, templates
from models.shapes.train.evaluate import exact_rates
from models.shapes.train.networks import TOKENS_PER_SIDE, Flow, pack, text_ids
from models.shapes.world import (
    CLASSES,
    IMAGE_SIZE,
    Description,
    Scene,
    hard_prompts,
    place,
    render,
    training_description,
)

STEPS = 5000
BATCH = 64
PEAK_RATE = 2e-3
EMA_DECAY = 0.999
AUXILIARY_WEIGHT = 0.05
POOL_SIZE = 60_000
EVALUATE_EVERY = 500
WARM_UP = 100
CONSTANT = 0.5


Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Packed x_t [b, 64, 16], t [b], text [b, 16], velocity [b, 64, 16], token classes [b, 64]."""


@dataclass(frozen=True)
class Pool:
    """Encoded training scenes: latents [n, 4, 16, 16] half, text [n, 16], tokens [n, 64] classes."""

    latents: Tensor
    text: Tensor
    tokens: Tensor
    layouts: Layouts


def may_train(description: Description) -> bool:
    """Whether training may see a caption: not the two- and three-group ones of the hard evaluation set.

    There are too few captions with one group or with a relation to keep any from training.
    """
    many = description.relation is None and len(description.groups) > 1
    return not (many and str(description) in _held_out())


@cache
def _held_out() -> frozenset[str]:
    return frozenset(hard_prompts(600))


def build_pool(autoencoder: AutoencoderKL, size: int, seed: int) -> Pool:
    """Render and encode scenes of the training mix."""
    rng = np.random.default_rng(seed)
    descriptions: list[Description] = []
    scenes: list[Scene] = []
    while len(scenes) < size:
        description = training_description(rng)
        if may_train(description):
            descriptions.append(description)
            scenes.append(place(description, rng))
    return Pool(
        encode(autoencoder, scenes),
        text_ids([str(description) for description in descriptions]),
        torch.from_numpy(np.stack([token_classes(scene) for scene in scenes])),
        layouts(descriptions, scenes),
    )


def encode(autoencoder: AutoencoderKL, scenes: Sequence[Scene]) -> Tensor:
    """Latents of the drawn scenes as the transformer sees them: [n, 4, 16, 16] half."""
    scale, shift = autoencoder.config.scaling_factor, autoencoder.config.shift_factor
    latents: list[Tensor] = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(scenes), 100):
            images = torch.from_numpy(np.stack([render(scene) for scene in scenes[start : start + 100]]))
            mean = autoencoder.encode(images * 2 - 1).latent_dist.mode()
            latents.append(((mean.float() - shift) * scale).half())
    return torch.cat(latents)


def token_classes(scene: Scene) -> np.ndarray:
    """Class of the object that covers each image token's centre, CLASSES for background: [64]."""
    size = IMAGE_SIZE / TOKENS_PER_SIDE
    centres = (np.arange(TOKENS_PER_SIDE) + 0.5) * size
    classes = np.full((TOKENS_PER_SIDE, TOKENS_PER_SIDE), CLASSES)
    for thing in scene.things:
        near = np.hypot(centres[None, :] - thing.x, centres[:, None] - thing.y) < thing.radius
        classes[near] = thing.kind
    return classes.reshape(-1)


def times(count: int, generator: torch.Generator) -> Tensor:
    """Training times: 15 % exactly 1, 35 % uniform in (0.7, 1), the rest stratified over (0, 1): [count]."""
    stratified = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    late = 0.7 + 0.3 * torch.rand(count, generator=generator)
    kind = torch.rand(count, generator=generator)
    return torch.where(kind < 0.15, torch.ones(count), torch.where(kind < 0.5, late, stratified))


def optimisers(flow: Flow, head: nn.Linear) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    matrices, others = [], list(head.parameters())
    for name, parameter in flow.named_parameters():
        block = name.startswith(("transformer.transformer_blocks", "transformer.single_transformer_blocks"))
        modulation = ".linear." in name
        (matrices if block and parameter.ndim == 2 and not modulation else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=PEAK_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4
        ),
        torch.optim.AdamW(others, lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.97)),
    ]


def rate(step: int, steps: int, first: int = 0) -> float:
    """Learning-rate factor: warm up from the step the run began or resumed at, hold, then linear to zero."""
    progress = step / steps
    return min(1.0, (step - first + 1) / WARM_UP) * min(1.0, (1 - progress) / (1 - CONSTANT))


def train(autoencoder: AutoencoderKL, out: Path, *, steps: int, pool_size: int) -> Flow:
    """Base training on encoded scenes with coupled noise."""
    return fit(
        lambda seed: _batches(build_pool(autoencoder, pool_size, seed=1), BATCH, seed),
        autoencoder,
        out,
        steps=steps,
        peak=PEAK_RATE,
        loss=functional.mse_loss,
    )


def fit(
    batches: Callable[[int], Iterator[Batch]],
    autoencoder: AutoencoderKL,
    out: Path,
    *,
    steps: int,
    peak: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    start: Flow | None = None,
) -> Flow:
    """Fit a flow (a new one, or a copy of `start`) to batches; returns its moving average.

    `batches` takes a seed and is called unless all steps are done. Checkpoints go to `out`, from where an
    interrupted run resumes.
    """
    net, head = copy.deepcopy(start) if start else Flow(), nn.Linear(128, CLASSES + 1)
    ema = copy.deepcopy(net)
    out.mkdir(parents=True, exist_ok=True)
    first = _resume(out, net, head, ema)
    low = in_bfloat16(net)
    opts = optimisers(net, head)
    drawn = batches(first) if first < steps else iter(())
    started = time.monotonic()
    running: list[float] = []
    for i in range(first, steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = peak * rate(i, steps, first)
        running.append(_step(net, low, head, opts, next(drawn), loss))
        decay = min(EMA_DECAY, (i + 1) / (i + 10))
        torch._foreach_lerp_(_data(ema), _data(net), 1 - decay)
        if (i + 1) % 100 == 0:
            print(
                f"flow {i + 1}/{steps} loss {np.mean(running[-100:]):.4f} {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if (i + 1) % EVALUATE_EVERY == 0 or i + 1 == steps:
            state = {"flow": net.state_dict(), "head": head.state_dict(), "ema": ema.state_dict()}
            torch.save({"step": i + 1, **state}, out / "checkpoint.pt")
            print(f"exact {exact_rates(ema, autoencoder, hard_prompts(100))}", flush=True)
    return ema


def in_bfloat16(net: Flow) -> Flow:
    """A copy in bfloat16; positions stay as they are, for bfloat16 cannot count past 256."""
    low = copy.deepcopy(net).bfloat16()
    low.positions = net.positions
    return low


def _data(module: nn.Module) -> list[Tensor]:
    return [parameter.data for parameter in module.parameters()]


def _resume(out: Path, flow: Flow, head: nn.Linear, ema: Flow) -> int:
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    flow.load_state_dict(saved["flow"])
    head.load_state_dict(saved["head"])
    ema.load_state_dict(saved["ema"])
    return saved["step"]


def _batches(pool: Pool, size: int, seed: int) -> Iterator[Batch]:
    """Batches of scenes with noise drawn for each anew, without end."""
    generator = torch.Generator().manual_seed(seed)
    patterns = templates()
    while True:
        index = torch.randint(len(pool.latents), (size,), generator=generator)
        data = pack(pool.latents[index].float())
        noise = pack(noise_for(pool.layouts.take(index), generator, patterns))
        t = times(size, generator)
        x = torch.lerp(data, noise, t[:, None, None])
        yield x, t, pool.text[index], noise - data, pool.tokens[index]


def _step(
    flow: Flow,
    low: Flow,
    head: nn.Linear,
    opts: list[torch.optim.Optimizer],
    batch: Batch,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """One step: forward and backward in bfloat16, the update in float32. Returns the velocity loss."""
    x, t, text, velocity, classes = batch
    # Flash attention's backward is slow on CPUs; plain matmul and softmax are faster at 80 tokens.
    with sdpa_kernel(SDPBackend.MATH):
        predicted, features = low(x, t, text)
        error = loss(predicted.float(), velocity)
        auxiliary = functional.cross_entropy(head(features.float()).flatten(0, 1), classes.flatten())
        (error + AUXILIARY_WEIGHT * auxiliary).backward()
    for master, copied in zip(flow.parameters(), low.parameters(), strict=True):
        master.grad = None if copied.grad is None else copied.grad.float()
        copied.grad = None
    nn.utils.clip_grad_norm_([*flow.parameters(), *head.parameters()], 1.0)
    for opt in opts:
        opt.step()
    head.zero_grad()
    torch._foreach_copy_(_data(low), _data(flow))
    return error.item()
