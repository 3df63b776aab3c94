"""Many searches side by side, their model and reward calls gathered into batches; `sampling` does not know.

Each search runs in a thread of its own and waits for the answer to its call. When all of them wait, the kind
of call with the most rows is made for all that asked for it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor

from sampling.problem import Problem, Scores

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one search: a function of a Problem by name, and its arguments, each [b, ...]."""

    kind: str
    inputs: tuple[Tensor, ...]
    answer: Future[Any] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        """The b of its arguments."""
        return len(self.inputs[0])


def together(
    problems: Sequence[Problem], search: Callable[[Problem], Answer], most: int, rows: int
) -> list[Answer]:
    """Search every problem and return the answers in order.

    Args:
        problems: of one model, prompt and reward: the functions of the first serve all.
        search: what to do with each.
        most: searches under way at once, at least 1.
        rows: the most rows in one call, at least 1; larger batches are cut into even parts.

    Raises:
        Exception: whatever a search raised.
    """
    inbox: SimpleQueue[Call | None] = SimpleQueue()
    with ThreadPoolExecutor(most) as pool:
        answers = [pool.submit(_advance, problem, search, inbox) for problem in problems]
        left, waiting = len(problems), list[Call]()
        while left:
            call = inbox.get()
            if call is None:
                left -= 1
            else:
                waiting.append(call)
            if waiting and len(waiting) == min(left, most):
                waiting = _serve(problems[0], waiting, rows)
    return [answer.result() for answer in answers]


def _advance(
    problem: Problem, search: Callable[[Problem], Answer], inbox: SimpleQueue[Call | None]
) -> Answer:
    def asking(kind: str) -> Callable[..., Any]:
        def ask(*inputs: Tensor) -> Any:  # noqa: ANN401 -- each kind has its own
            call = Call(kind, inputs)
            inbox.put(call)
            return call.answer.result()

        return ask

    asked = {kind: asking(kind) for kind in _ANSWERS if getattr(problem, kind)}
    try:
        return search(replace(problem, **asked))
    finally:
        inbox.put(None)


def _serve(problem: Problem, waiting: list[Call], rows: int) -> list[Call]:
    """Answer the calls of the kind that most rows wait for; the others go on waiting."""
    kind = max(_ANSWERS, key=lambda kind: sum(call.rows for call in waiting if call.kind == kind))
    calls = [call for call in waiting if call.kind == kind]
    try:
        for call, answer in zip(calls, _answers(problem, kind, calls, rows), strict=True):
            call.answer.set_result(answer)
    except Exception as error:  # noqa: BLE001 -- it is raised again in each search that asked
        for call in calls:
            call.answer.set_exception(error)
    return [call for call in waiting if call.kind != kind]


def _answers(problem: Problem, kind: str, calls: Sequence[Call], rows: int) -> list[Any]:
    function, (join, cut) = getattr(problem, kind), _ANSWERS[kind]
    inputs = [torch.cat(column) for column in zip(*(call.inputs for call in calls), strict=True)]
    parts = -(-len(inputs[0]) // rows)
    with torch.inference_mode():
        pieces = zip(*(column.tensor_split(parts) for column in inputs), strict=True)
        whole = join([function(*piece) for piece in pieces])
    ends = torch.tensor([call.rows for call in calls]).cumsum(0).tolist()
    return [cut(whole, slice(end - call.rows, end)) for call, end in zip(calls, ends, strict=True)]


def _join_scores(parts: Sequence[Scores]) -> Scores:
    images = [part.images for part in parts if part.images is not None]
    return Scores(
        rewards=[reward for part in parts for reward in part.rewards],
        parts=[each for part in parts for each in part.parts],
        images=torch.cat(images) if images else None,
    )


def _cut_scores(scores: Scores, own: slice) -> Scores:
    images = None if scores.images is None else scores.images[own]
    return Scores(scores.rewards[own], scores.parts[own], images)


def _join_slopes(parts: Sequence[tuple[Scores, Tensor]]) -> tuple[Scores, Tensor]:
    scores, gradients = zip(*parts, strict=True)
    return _join_scores(scores), torch.cat(gradients)


_ANSWERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "velocity": (torch.cat, lambda velocities, own: velocities[own]),
    "score": (_join_scores, _cut_scores),
    "slope": (_join_slopes, lambda slopes, own: (_cut_scores(slopes[0], own), slopes[1][own])),
}
"""By kind of call: how answers in parts become one, and which rows of it are a call's own."""
