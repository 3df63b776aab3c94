"""What the networks said is kept: searches of one prompt and seed ask for much of the same.

They share the initial noises, and one method's searches with several budgets or rewards share what they draw
until their decisions part. A row asked for again, bit for bit, is answered from memory.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.together import Serve

Row = Any
"""One row of an answer: a tensor, or a tuple of them."""


class Recall:
    """Answers rows that were answered before, and has the others answered.

    Args:
        serve: answers calls; a row of its answer depends on no other row, but for rounding.
        keep: rows kept, those not asked for longest dropped first.

    Attributes:
        asked, answered: rows asked for, and those of them that were not at hand.
    """

    def __init__(self, serve: Serve, keep: int) -> None:
        self.serve, self.keep = serve, keep
        self.asked = self.answered = 0
        self._known: OrderedDict[bytes, Row] = OrderedDict()

    def __call__(self, calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """See `together.Serve`."""
        keys = [keys_of(call) for call in calls]
        rows = {key: self._known[key] for own in keys for key in own if key in self._known}
        taken: set[bytes] = set(rows)
        left: list[tuple[tuple[Any, ...], list[bytes]]] = []
        for call, own in zip(calls, keys, strict=True):
            new = [i for i, key in enumerate(own) if key not in taken and not taken.add(key)]
            if new:
                left.append((picked(call, new), [own[i] for i in new]))
        if left:
            answers = self.serve([call for call, _ in left])
            for answer, (_, own) in zip(answers, left, strict=True):
                rows.update(zip(own, rows_of(answer), strict=True))
        self.asked += sum(map(len, keys))
        self.answered += sum(len(own) for _, own in left)
        self._keep(rows)
        return [joined([rows[key] for key in own]) for own in keys]

    def _keep(self, rows: Mapping[bytes, Row]) -> None:
        self._known.update(rows)
        for key in rows:
            self._known.move_to_end(key)
        while len(self._known) > self.keep:
            self._known.popitem(last=False)


def keys_of(call: tuple[Any, ...]) -> list[bytes]:
    """What tells the rows of a call apart: its tensors' rows, and its other arguments."""
    others = repr([each for each in call if not isinstance(each, Tensor)]).encode()
    tensors = [each for each in call if isinstance(each, Tensor)]
    return [
        b"".join((others, *(row.cpu().numpy().tobytes() for row in rows)))
        for rows in zip(*tensors, strict=True)
    ]


def picked(call: tuple[Any, ...], rows: list[int]) -> tuple[Any, ...]:
    """The call with some of its rows only."""
    return tuple(each[rows] if isinstance(each, Tensor) else each for each in call)


def rows_of(answer: Any) -> Iterator[Row]:  # noqa: ANN401 -- each kind of call has its own
    """The rows of an answer, each with memory of its own."""
    if isinstance(answer, Tensor):
        return (row.clone() for row in answer)
    return zip(*map(rows_of, answer), strict=True)


def joined(rows: Sequence[Row]) -> Any:  # noqa: ANN401 -- each kind of call has its own
    """An answer of rows."""
    if isinstance(rows[0], Tensor):
        return torch.stack(list(rows))
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
