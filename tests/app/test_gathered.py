"""Questions asked together, and waits that are shared."""

import asyncio
from collections.abc import Sequence

import pytest

from app.gathered import Gathered, Shared


def test_what_is_wanted_at_once_is_asked_in_one_call_and_later_again() -> None:
    calls: list[list[str]] = []

    async def ask(names: Sequence[str]) -> list[str]:
        calls.append(list(names))
        await asyncio.sleep(0)
        return [name.upper() for name in names]

    async def run() -> list[str]:
        gathered = Gathered(ask)
        first = await asyncio.gather(*(gathered.get(name) for name in "abab"))
        return [*first, await gathered.get("a")]

    assert asyncio.run(run()) == ["A", "B", "A", "B", "A"]
    assert calls == [["a", "b"], ["a"]]


def test_a_question_is_never_answered_with_what_was_read_before_it() -> None:
    value, reading = ["old"], asyncio.Event()

    async def ask(names: Sequence[str]) -> list[str]:
        found = value[0]
        reading.set()
        await asyncio.sleep(0.01)
        return [found for _ in names]

    async def run() -> tuple[str, str]:
        gathered = Gathered(ask)
        early = asyncio.create_task(gathered.get("a"))
        await reading.wait()
        value[0] = "new"
        return await gathered.get("a"), await early

    assert asyncio.run(run()) == ("new", "old")


def test_an_error_reaches_all_who_asked_and_one_who_left_disturbs_nobody() -> None:
    async def ask(names: Sequence[str]) -> list[str]:
        await asyncio.sleep(0.01)
        if "bad" in names:
            raise ConnectionError("away")
        return list(names)

    async def run() -> None:
        gathered = Gathered(ask)
        outcomes = await asyncio.gather(gathered.get("bad"), gathered.get("good"), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["away", "away"]
        leaving, staying = (asyncio.create_task(gathered.get("good")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == "good"

    asyncio.run(run())


def test_a_wait_is_shared_and_ends_with_the_last_who_waits() -> None:
    begun, ended = [], []

    async def never() -> None:
        begun.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def run() -> None:
        shared = Shared()
        first, second = (asyncio.create_task(shared.get("key", never)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert (begun, ended) == ([1], [])
        second.cancel()
        await asyncio.sleep(0.01)
        assert ended == [1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(shared.get("key", never), 0.01)
        assert (begun, shared.waits) == ([1, 1], {})

    asyncio.run(run())


def test_a_shared_answer_goes_to_all_and_an_error_too() -> None:
    asked = []

    async def fail() -> str:
        asked.append(1)
        await asyncio.sleep(0.01)
        raise ConnectionError("away")

    async def run() -> None:
        shared = Shared()
        outcomes = await asyncio.gather(*(shared.get("key", fail) for _ in range(3)), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["away"] * 3

    asyncio.run(run())
    assert asked == [1]
