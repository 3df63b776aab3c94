"""Train the flow: transformer and text encoders on encoded scenes with coupled noise."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.shapes.train.coupling import Layouts, layouts, noise_for, templates
from models.shapes.train.evaluate import exact_rates
from models.shapes.train.networks import TOKENS_PER_SIDE, Flow, pack, save_repository, text_ids
from models.shapes.world import CLASSES, IMAGE_SIZE, Scene, hard_prompts, place, render, training_description

STEPS = 2200
BATCH = 64
EMA_DECAY = 0.999
AUXILIARY_WEIGHT = 0.05
POOL_SIZE = 40_000
EVALUATE_EVERY = 500
WARM_UP = 100
CONSTANT = 0.5


@dataclass(frozen=True)
class Pool:
    """Encoded training scenes: latents [n, 4, 16, 16] half, text [n, 16], tokens [n, 64] classes."""

    latents: Tensor
    text: Tensor
    tokens: Tensor
    layouts: Layouts


def build_pool(autoencoder: AutoencoderKL, size: int, seed: int) -> Pool:
    """Render and encode scenes whose captions are not in the hard evaluation set."""
    rng = np.random.default_rng(seed)
    held_out = set(hard_prompts(600))
    descriptions, scenes, latents = [], [], []
    while len(scenes) < size:
        description = training_description(rng)
        if (
            str(description) not in held_out
            or description.relation is not None
            or len(description.groups) == 1
        ):
            descriptions.append(description)
            scenes.append(place(description, rng))
    scale, shift = autoencoder.config.scaling_factor, autoencoder.config.shift_factor
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, size, 100):
            batch = torch.from_numpy(np.stack([render(scene) for scene in scenes[start : start + 100]]))
            mean = autoencoder.encode(batch * 2 - 1).latent_dist.mode()
            latents.append(((mean.float() - shift) * scale).half())
    tokens = torch.from_numpy(np.stack([token_classes(scene) for scene in scenes]))
    return Pool(
        torch.cat(latents),
        text_ids([str(description) for description in descriptions]),
        tokens,
        layouts(descriptions, scenes),
    )


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
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4),
        torch.optim.AdamW(others, lr=2e-3, weight_decay=0.01, betas=(0.9, 0.97)),
    ]


def rate(step: int, steps: int) -> float:
    """Learning-rate factor: warm up, hold, then linear to zero."""
    progress = step / steps
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - progress) / (1 - CONSTANT))


def train(pool: Pool, autoencoder: AutoencoderKL, steps: int, batch_size: int, out: Path) -> Flow:
    """Run the training; checkpoints go to `out`, from where it resumes."""
    flow, head = Flow(), nn.Linear(128, CLASSES + 1)
    ema = copy.deepcopy(flow)
    first = _resume(out, flow, head, ema)
    low = copy.deepcopy(flow).bfloat16()
    low.positions = flow.positions
    opts = optimisers(flow, head)
    batches = _batches(pool, batch_size, seed=first)
    started = time.monotonic()
    running: list[float] = []
    for i in range(first, steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = 2e-3 * rate(i, steps)
        running.append(_step(flow, low, head, opts, next(batches)))
        decay = min(EMA_DECAY, (i + 1) / (i + 10))
        torch._foreach_lerp_(_data(ema), _data(flow), 1 - decay)
        if (i + 1) % 100 == 0:
            print(
                f"flow {i + 1}/{steps} loss {np.mean(running[-100:]):.4f} {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if (i + 1) % EVALUATE_EVERY == 0 or i + 1 == steps:
            torch.save(
                {
                    "step": i + 1,
                    "flow": flow.state_dict(),
                    "head": head.state_dict(),
                    "ema": ema.state_dict(),
                },
                out / "checkpoint.pt",
            )
            print(f"exact {exact_rates(ema, autoencoder, hard_prompts(100))}", flush=True)
    return ema


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


def _batches(pool: Pool, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Packed (x_t, t, text, velocity, token classes), without end."""
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
    batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
) -> float:
    """One step: forward and backward in bfloat16, the update in float32. Returns the velocity loss."""
    x, t, text, velocity, classes = batch
    # Flash attention's backward is slow on CPUs; plain matmul and softmax are faster at 80 tokens.
    with sdpa_kernel(SDPBackend.MATH):
        predicted, features = low(x, t, text)
        loss = functional.mse_loss(predicted.float(), velocity)
        auxiliary = functional.cross_entropy(head(features.float()).flatten(0, 1), classes.flatten())
        (loss + AUXILIARY_WEIGHT * auxiliary).backward()
    for master, copied in zip(flow.parameters(), low.parameters(), strict=True):
        master.grad = None if copied.grad is None else copied.grad.float()
        copied.grad = None
    nn.utils.clip_grad_norm_([*flow.parameters(), *head.parameters()], 1.0)
    for opt in opts:
        opt.step()
    head.zero_grad()
    torch._foreach_copy_(_data(low), _data(flow))
    return loss.item()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--pool", type=int, default=POOL_SIZE)
    parser.add_argument("--autoencoder", type=Path, default=Path(".train/autoencoder"))
    parser.add_argument("--out", type=Path, default=Path(".train/flow"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).eval()
    pool = build_pool(autoencoder, arguments.pool, seed=1)
    print("pool encoded", flush=True)
    ema = train(pool, autoencoder, arguments.steps, arguments.batch_size, arguments.out)
    save_repository(ema, autoencoder, arguments.out / "repository")


if __name__ == "__main__":
    main()
