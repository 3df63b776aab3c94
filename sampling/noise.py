"""Noise with an address: what a draw is depends on (seed, chain, level, draw) and on nothing else."""

import struct
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AddressedNoise:
    """Standard normal latents by address.

    Batch size, order, resumption and the number of workers cannot change a draw: each has its own Philox
    generator, keyed by a 128-bit hash of its address. (Torch's CPU generator keeps 32 bits of a seed.)

    Args:
        seed: of the whole search, in [0, 2^64).
        shape: of one latent.
    """

    seed: int
    shape: tuple[int, ...]

    def draw(self, chain: int, level: int, draw: int) -> Tensor:
        """A latent [*shape], float32, on the CPU."""
        generator = self._generator(chain, level, draw, b"")
        return torch.as_tensor(generator.standard_normal(self.shape, dtype=np.float32))

    def uniform(self, chain: int, level: int) -> float:
        """A number uniform on [0, 1) for a choice among candidates, independent of every latent."""
        return self._generator(chain, level, 0, b"uniform").random()

    def _generator(self, chain: int, level: int, draw: int, purpose: bytes) -> np.random.Generator:
        address = struct.pack("<Qqqq", self.seed, chain, level, draw)
        key = int.from_bytes(blake2b(address, digest_size=16, person=purpose).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))
