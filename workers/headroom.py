"""How many rows a call may have: what passes of one and of two rows take, against the memory that is free."""

import logging
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from workers.diagnosis import out_of_memory

Pass = Callable[[int], object]
"""A call of the model or of the rewards with so many rows."""
KEPT_FREE = 0.1
"""Part of the free memory that is left: for pictures that a search keeps, and for gaps between blocks."""
MOST = 256
"""Rows beyond which no device gains anything, and a request could take all memory there is."""
log = logging.getLogger(__name__)


class Memory(Protocol):
    """A device's memory."""

    def free(self) -> int:
        """Bytes that could be had now."""
        ...

    def peak(self, call: Callable[[], object]) -> int:
        """Bytes that a call takes at its peak, beyond what was taken before."""
        ...


@dataclass(frozen=True)
class CudaMemory:
    """A GPU's, by torch's allocator, which all that runs in this process uses."""

    device: torch.device

    def free(self) -> int:
        """See `Memory.free`. Blocks that the allocator holds for nobody are given back first."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def peak(self, call: Callable[[], object]) -> int:
        """See `Memory.peak`."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def taken(device: torch.device) -> int:
    """Bytes that this process takes of a device while it rests: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_of(device: torch.device) -> Memory | None:
    """What measures a device; None: it has no memory of its own."""
    return CudaMemory(device) if device.type == "cuda" else None


class Kind(NamedTuple):
    """What decides how much memory a row takes."""

    width: int
    height: int
    forwards: int
    rewards: frozenset[str]
    guided: bool
    image: bool = False


@dataclass
class Headroom:
    """Knows how many rows a call may have, for each kind of search that there was.

    Args:
        memory: of the device; None: it is not measured, and `MOST` are taken to fit.
        most: rows that the catalogue allows; None: as many as fit.
    """

    memory: Memory | None = None
    most: int | None = None
    _known: dict[Kind, int] = field(default_factory=dict[Kind, int])

    def rows(self, kind: Kind, passes: Sequence[Pass]) -> int:
        """The most rows in a call of searches of this kind.

        Raises:
            Exception: see `most_rows`, which runs for the first search of a kind.
        """
        if kind not in self._known:
            fitting = most_rows(self.memory, passes) if self.memory else MOST
            self._known[kind] = min(fitting, self.most or MOST)
        return self._known[kind]

    def lower(self, kind: Kind, rows: int) -> None:
        """Remember that memory ran out: only so many rows fit."""
        self._known[kind] = rows

    def forget(self) -> None:
        """Measure anew: something was loaded that takes memory."""
        self._known.clear()


def most_rows(memory: Memory, passes: Sequence[Pass]) -> int:
    """The largest power of two of rows that each of some passes has room for.

    A power of two, so that two workers whose free memory differs a little put rows together alike: pictures
    are the same to the last bit only in the same batches.

    Raises:
        Exception: what a pass of one row raises, for want of memory or for another reason.
    """
    for one in passes:
        one(1)  # the first call of its kind also takes what later ones find there
    costs = [(memory.peak(lambda p=one: p(1)), _peak_of_two(memory, one)) for one in passes]
    free = memory.free()
    fitting = min(_rows_in(free * (1 - KEPT_FREE), *cost) for cost in costs)
    rows = 1 << (fitting.bit_length() - 1)
    log.info("%d rows fit in a call: %d bytes are free, passes of 1 and 2 rows take %s", rows, free, costs)
    return rows


def _peak_of_two(memory: Memory, one: Pass) -> int | None:
    """Bytes that two rows take; None: more than there are."""
    try:
        return memory.peak(lambda: one(2))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None


def _rows_in(room: float, one: int, two: int | None) -> int:
    """Rows that fit where each takes what the second takes beyond the first; one row has just run."""
    if two is None:
        return 1
    each = max(two - one, 1)
    return max(1, min(MOST, 1 + int((room - one) / each)))
