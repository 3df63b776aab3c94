"""Many searches side by side, their calls gathered into batches; `sampling` does not know.

Each search runs in a thread of its own and waits for the answer to its call. When all of them wait and ask
for enough rows, the kind of call with the most rows is answered for all that asked for it; while they ask for
less, another search is begun. One thread runs at a time, and each goes on before the next is woken: hundreds
that wake at once would spend their time on Python's lock, and which of them share a call would be a race.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from torch import Tensor

Answer = TypeVar("Answer")
Serve = Callable[[Sequence[tuple[Any, ...]]], Sequence[Any]]
"""The arguments of several calls of one kind, each call's first ones [b, ...], to their answers in order."""
Ask = Callable[..., Any]
"""Kind and arguments of a call to its answer."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one search; its first argument is a tensor [b, ...]."""

    kind: str
    arguments: tuple[Any, ...]
    answer: Future[Any] = field(default_factory=Future[Any])

    @property
    def rows(self) -> int:
        """The b of its arguments."""
        first: Tensor = self.arguments[0]
        return len(first)


@dataclass(frozen=True)
class Ended(Generic[Answer]):
    """A search has returned, or raised."""

    answer: Answer | None = None
    error: BaseException | None = None


def together(
    searches: Iterable[Callable[[Ask], Answer]], serve: Mapping[str, Serve], rows: int, most: int
) -> Iterator[Answer]:
    """Run searches and yield what each returns, as they end.

    Args:
        searches: each is given how to ask; taken one by one, when there is room for another.
        serve: how calls are answered, by kind. What an answer raises is raised in each search that asked.
        rows: asked for at once, below which another search is begun.
        most: searches under way, at least 1.

    Raises:
        BaseException: whatever a search raised; the others are left behind.
    """
    inbox: SimpleQueue[Call | Ended[Answer]] = SimpleQueue()
    waiting: list[Call] = []
    left = iter(searches)
    while True:
        enough = len(waiting) >= most or sum(call.rows for call in waiting) >= rows
        told: Iterable[Call | Ended[Answer]]
        if not enough and (search := next(left, None)) is not None:
            Thread(target=_run, args=(search, inbox), daemon=True).start()
            told = [inbox.get()]
        elif waiting:
            waiting, told = _serve(serve, waiting, inbox)
        else:
            return
        for one in told:
            if isinstance(one, Call):
                waiting.append(one)
            elif one.error is not None:
                raise one.error
            else:
                yield one.answer  # pyright: ignore[reportReturnType] -- there is one where there is no error


def _run(search: Callable[[Ask], Answer], inbox: SimpleQueue[Call | Ended[Answer]]) -> None:
    def ask(kind: str, *arguments: Any) -> Any:  # noqa: ANN401 -- each kind has its own
        call = Call(kind, arguments)
        inbox.put(call)
        return call.answer.result()

    try:
        inbox.put(Ended(search(ask)))
    except BaseException as error:  # noqa: BLE001 -- it is raised again where the answers are
        inbox.put(Ended(error=error))


def _serve(
    serve: Mapping[str, Serve], waiting: Sequence[Call], inbox: SimpleQueue[Call | Ended[Answer]]
) -> tuple[list[Call], Iterator[Call | Ended[Answer]]]:
    """Answer the calls of the kind that most rows wait for.

    Returns:
        The calls that go on waiting, and what those that were answered say next, one after the other.
    """
    kind = max(serve, key=lambda kind: sum(call.rows for call in waiting if call.kind == kind))
    calls = [call for call in waiting if call.kind == kind]
    try:
        answers = serve[kind]([call.arguments for call in calls])
        tell = [partial(call.answer.set_result, own) for call, own in zip(calls, answers, strict=True)]
    except Exception as error:  # noqa: BLE001 -- it is raised again in each search that asked
        tell = [partial(call.answer.set_exception, error) for call in calls]
    return [call for call in waiting if call.kind != kind], (_after(each, inbox) for each in tell)


def _after(tell: Callable[[], None], inbox: SimpleQueue[Call | Ended[Answer]]) -> Call | Ended[Answer]:
    tell()
    return inbox.get()
