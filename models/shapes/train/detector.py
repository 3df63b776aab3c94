"""Train the detector on spoilt and mixed scenes, and on the flow's own pictures as the judge reads them.

The flow's one-step pictures are what a search scores most, so the detector must neither miss their shapes nor
accept their defects.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.shapes.detector import MAP_SIZE, Detector
from models.shapes.judge import Found, read_objects
from models.shapes.train.evaluate import decode, generator_noise, sample
from models.shapes.train.networks import load_repository, text_ids
from models.shapes.world import CLASSES, IMAGE_SIZE, hard_prompts, place, render, training_description

STEPS = 1200
PICTURES = 6400
CENTRE_WEIGHT = 4.0  # a centre weighs as much as four cells of background
STEP_COUNTS = (1, 1, 2, 4)  # how the flow's pictures are drawn: half of them in one step

Labelled = tuple[Tensor, Tensor]


def centre_map(objects: list[Found]) -> NDArray[np.float32]:
    """Heat map [CLASSES, 8, 8] of the clean objects' centres."""
    target = np.zeros((CLASSES, MAP_SIZE, MAP_SIZE), dtype=np.float32)
    for thing in objects:
        row, column = (min(MAP_SIZE - 1, int(v * MAP_SIZE / IMAGE_SIZE)) for v in (thing.y, thing.x))
        if thing.kind is not None:
            target[thing.kind, row, column] = 1
    return target


def rendered(count: int, rng: np.random.Generator) -> Labelled:
    """Images [count, 3, 64, 64] and heat maps [count, CLASSES, 8, 8] of drawn scenes."""
    images, targets = [], []
    for _ in range(count):
        scene = place(training_description(rng), rng)
        images.append(render(scene))
        targets.append(centre_map([Found(thing.kind, thing.x, thing.y) for thing in scene.things]))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


def drawn(repository: Path, count: int, rng: np.random.Generator) -> Labelled:
    """The flow's own pictures, labelled by the judge; prompts of the hard evaluation set are left out."""
    flow, autoencoder = load_repository(repository)
    held_out, captions = set(hard_prompts(600)), []
    while len(captions) < count:
        caption = str(training_description(rng))
        if caption not in held_out:
            captions.append(caption)
    noise, text, images = generator_noise(count, seed=11), text_ids(captions), []
    for start in range(0, count, 64):
        steps = STEP_COUNTS[start // 64 % len(STEP_COUNTS)]
        part = slice(start, start + 64)
        images.append(decode(autoencoder, sample(flow, noise[part], text[part], steps)))
    pictures = torch.cat(images)
    targets = np.stack([centre_map(read_objects(picture)) for picture in pictures.numpy()])
    return pictures, torch.from_numpy(targets)


def spoil(images: Tensor, targets: Tensor, generator: torch.Generator) -> Labelled:
    """Mix a third of the pictures (objects count in proportion), blur a third, add noise to all."""
    count = len(images)
    kind = torch.rand(count, generator=generator)
    share = torch.rand(count, generator=generator).where(kind < 1 / 3, torch.ones(count))[:, None, None, None]
    other = torch.randperm(count, generator=generator)
    images = share * images + (1 - share) * images[other]
    targets = share * targets + (1 - share) * targets[other]
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.where((kind > 2 / 3)[:, None, None, None], blurred, images)
    level = 0.06 * torch.rand(count, 1, 1, 1, generator=generator)
    return (images + level * torch.randn(images.shape, generator=generator)).clamp(0, 1), targets


def train(steps: int, own: Labelled, seed: int) -> Detector:
    """Weighted cross-entropy on half spoilt scenes, half drawn pictures; returns the detector."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    bank_images, bank_targets = rendered(6000, rng)
    detector = Detector()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    started = time.monotonic()
    for i in range(steps):
        drawing = torch.randint(len(bank_images), (32,), generator=generator)
        own_index = torch.randint(len(own[0]), (32,), generator=generator)
        spoilt = spoil(bank_images[drawing], bank_targets[drawing], generator)
        images, targets = torch.cat([spoilt[0], own[0][own_index]]), torch.cat([spoilt[1], own[1][own_index]])
        loss = functional.binary_cross_entropy_with_logits(
            detector(images), targets, weight=1 + (CENTRE_WEIGHT - 1) * targets, reduction="sum"
        ) / len(images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (i + 1) % 100 == 0:
            print(
                f"detector {i + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return detector.eval()
