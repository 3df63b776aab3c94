"""Calls of a model and its rewards that belong to no search: to warm them up, and to see what they take."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from models.rewards.composite import Composite
from workers.headroom import Pass
from workers.meter import Clock, Metered

ELSEWHERE = frozenset({"http"})
"""Rewards that compute on another machine: pictures of noise are not sent there."""


def passes(metered: Metered, device: torch.device, *, guided: bool) -> tuple[Pass, Pass]:
    """A call of the model with so many latents of noise, and one that decodes and judges as many.

    Args:
        metered: of the search; its clock does not count these calls.
        device: where latents live.
        guided: whether the search asks for gradients.
    """
    apart = replace(metered, clock=Clock(metered.clock.synchronize))
    judge = judging(apart, guided=guided)

    @torch.inference_mode()
    def predict(rows: int) -> None:
        apart.velocity(noise(apart, rows, device), torch.full((rows,), 0.5, device=device))

    @torch.inference_mode()
    def verdict(rows: int) -> None:
        judge(noise(apart, rows, device))

    return predict, verdict


def judging(metered: Metered, *, guided: bool) -> Callable[[Tensor], object]:
    """What decodes latents and judges the pictures by those rewards that are on this machine."""
    here = {name: part for name, part in metered.reward.parts.items() if name not in ELSEWHERE}
    if not any(part.weight for part in here.values()):
        return metered.session.decode
    metered = replace(metered, reward=Composite(here))
    return metered.slope if guided else metered.score


def noise(metered: Metered, rows: int, device: torch.device) -> Tensor:
    """Latents [rows, *latent] as they are at t = 1; the global generator stays where it was."""
    shape = (rows, *metered.session.latent_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
