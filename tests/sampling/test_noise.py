from itertools import product

import pytest
import torch

from sampling.noise import AddressedNoise

SHAPE = (4, 3, 3)


def test_a_draw_depends_on_its_address_only() -> None:
    noise = AddressedNoise(7, SHAPE)
    first = noise.draw(1, 2, 3)
    noise.draw(0, 0, 0)
    assert torch.equal(AddressedNoise(7, SHAPE).draw(1, 2, 3), first)
    assert first.dtype == torch.float32


def test_every_address_has_its_own_noise() -> None:
    seeds = (0, 1, 2**32, 2**63)
    draws = [
        AddressedNoise(seed, SHAPE).draw(*address)
        for seed in seeds
        for address in product(range(3), repeat=3)
    ]
    flat = torch.stack(draws).flatten(1)
    assert len(torch.unique(flat, dim=0)) == len(draws)


def test_the_draws_are_standard_normal() -> None:
    """Mean, variance and kurtosis of 200,000 numbers within 5 standard errors (fixed seed)."""
    x = torch.stack([AddressedNoise(3, (2000,)).draw(0, 0, draw) for draw in range(100)]).double()
    n = x.numel()
    assert abs(x.mean()) < 5 / n**0.5
    assert abs(x.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 5 * (96 / n) ** 0.5
    neighbours = (x[:-1] * x[1:]).mean()
    assert abs(neighbours) < 5 / n**0.5


def test_the_noise_of_an_address_never_changes() -> None:
    """A stored job must mean the same for ever: these numbers may not move."""
    got = AddressedNoise(2026, (3,)).draw(1, 2, 3).tolist()
    assert got == pytest.approx([-0.20809823, 0.56629097, -0.11240175], rel=1e-6)
    assert AddressedNoise(2026, (3,)).uniform(1, 2) == pytest.approx(0.361926421334, rel=1e-12)


def test_choices_are_uniform_and_have_numbers_of_their_own() -> None:
    noise = AddressedNoise(5, SHAPE)
    numbers = [noise.uniform(chain, level) for chain, level in product(range(60), repeat=2)]
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    tenths = torch.histc(torch.tensor(numbers), bins=10, min=0, max=1)
    assert ((tenths - 360).abs() < 5 * (3600 * 0.09) ** 0.5).all()
