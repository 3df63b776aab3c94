"""How many rows are found to fit, on a device whose memory is arithmetic."""

from collections.abc import Callable

import pytest
import torch

from workers.headroom import memory_of, most_rows


class Arithmetic:
    """A device where a row takes so many bytes, and each call some of its own."""

    def __init__(self, size: int, each: int, fixed: int = 0) -> None:
        self.size, self.each, self.fixed = size, each, fixed
        self.taken = 0
        self.calls: list[int] = []

    def free(self) -> int:
        return self.size

    def peak(self, call: Callable[[], object]) -> int:
        call()
        return self.taken

    def one(self, rows: int) -> None:
        self.calls.append(rows)
        self.taken = self.fixed + rows * self.each
        if self.taken > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("size", "each", "fixed", "rows"),
    [
        (1000, 100, 0, 8),  # nine fit in the 900 that are used
        (1000, 112, 0, 8),
        (1000, 113, 0, 4),
        (1000, 100, 550, 2),
        (1000, 500, 0, 1),
        (1000, 900, 0, 1),  # no room for the second to be measured
        (10_000, 0, 10, 256),
    ],
)
def test_rows_are_a_power_of_two_that_fits(size: int, each: int, fixed: int, rows: int) -> None:
    memory = Arithmetic(size, each, fixed)
    assert most_rows(memory, [memory.one]) == rows
    assert memory.calls == [1, 1, 2], "warm before it is measured"


def test_the_hungriest_pass_decides() -> None:
    memory = Arithmetic(1000, 100)

    def hungry(rows: int) -> None:
        memory.one(rows)
        memory.taken = 200 * rows

    assert most_rows(memory, [memory.one, hungry]) == 4
    assert most_rows(memory, [hungry, memory.one]) == 4


def test_no_room_for_one_row_is_the_callers_to_tell() -> None:
    memory = Arithmetic(1000, 1001)
    with pytest.raises(torch.OutOfMemoryError):
        most_rows(memory, [memory.one])


def test_what_is_no_want_of_memory_is_not_taken_for_it() -> None:
    memory = Arithmetic(1000, 10)

    def broken(rows: int) -> None:
        if rows == 2:
            raise ValueError("another reason")
        memory.one(rows)

    with pytest.raises(ValueError, match="another reason"):
        most_rows(memory, [broken])


def test_the_cpu_has_no_memory_of_its_own() -> None:
    assert memory_of(torch.device("cpu")) is None
