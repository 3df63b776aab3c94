"""Latents moved on from predictions that are known: no NFE."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sampling import kernels
from sampling.events import Candidate
from sampling.prediction import Prediction, stack
from sampling.problem import Problem
from sampling.state import Address, draw_noise


def children(problem: Problem, parents: Sequence[Candidate], addresses: Sequence[Address]) -> Tensor:
    """One step of the sampler's kernel for each parent, with the noise of the child's address.

    Args:
        problem: its sampler moves.
        parents: b candidates; one may stand there several times.
        addresses: of the b children.

    Returns:
        [b, *latent].
    """
    x = torch.stack([parent.x for parent in parents])
    prediction = stack([parent.prediction for parent in parents])
    r = [address.t for address in addresses]
    r_next = [address.t_next for address in addresses]
    places = [(address.chain, address.level, address.draw) for address in addresses]
    return step(problem, x, prediction, r, r_next, places)


def step(
    problem: Problem,
    x: Tensor,
    prediction: Prediction,
    r: Sequence[float],
    r_next: Sequence[float],
    places: Sequence[tuple[int, int, int]],
) -> Tensor:
    """kernels.step, with noise from ``places`` (chain, level, draw) where a step is stochastic."""
    z = None
    if any(kernels.is_stochastic(problem.sampler, *times) for times in zip(r, r_next, strict=True)):
        z = draw_noise(problem, places)
    return kernels.step(problem.sampler, x, prediction, r, r_next, z)
