"""Questions that many clients have at the same time, asked of Redis once: each round trip costs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Gathered(Generic[T]):
    """Asks in one call for all that is wanted in one turn of the event loop, once for each name.

    What is found is never older than the question.
    """

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]) -> None:
        """Ask with a function that returns what it found, in the order of the names given."""
        self.ask = ask
        self.wanted: dict[str, list[asyncio.Future[T]]] = {}
        self.asking: set[asyncio.Task[None]] = set()

    async def get(self, name: str) -> T:
        """Return what is found under a name; raise what the call raised."""
        if not self.wanted:
            task = asyncio.create_task(self.answer())
            self.asking.add(task)
            task.add_done_callback(self.asking.discard)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.wanted.setdefault(name, []).append(future)
        return await future

    async def answer(self) -> None:
        """Ask for all that is wanted by now; give everybody what was found, or the error."""
        wanted, self.wanted = self.wanted, {}
        try:
            answers = await self.ask(list(wanted))
        except Exception as error:  # noqa: BLE001 -- it is raised where it was asked for
            for future in waiting(wanted):
                future.set_exception(error)
            return
        for name, found in zip(wanted, answers, strict=True):
            for future in waiting({name: wanted[name]}):
                future.set_result(found)


def waiting(wanted: dict[str, list[asyncio.Future[T]]]) -> list[asyncio.Future[T]]:
    """Return those of the futures whose clients have not left."""
    return [future for futures in wanted.values() for future in futures if not future.done()]


@dataclass
class Wait:
    """What some wait for, and how many do."""

    task: asyncio.Task[Any]
    waiting: int = 0


class Shared:
    """Waits once for what many wait for at the same time; the last one to leave ends the waiting.

    Whoever joins has the answer to a question that was asked earlier: fit for what only grows.
    """

    def __init__(self) -> None:
        """Begin with nothing to wait for."""
        self.waits: dict[Hashable, Wait] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer to `ask`, or that of an earlier call with this key which still waits."""
        wait = self.waits.get(key)
        if wait is None or wait.task.done():
            wait = self.waits[key] = Wait(asyncio.create_task(ask()))
        wait.waiting += 1
        try:
            return await asyncio.shield(wait.task)
        finally:
            wait.waiting -= 1
            if not wait.waiting:
                wait.task.cancel()
                if self.waits.get(key) is wait:
                    del self.waits[key]
