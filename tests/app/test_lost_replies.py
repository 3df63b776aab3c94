"""A command whose reply is lost is sent again, and finds its own work done: that is no refusal."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from app import jobs
from app.access import ANYBODY
from app.services import Services, opened
from app.store import keys_of
from contracts.jobs import Generation, Status
from contracts.settings import Settings
from tests.app.hand import Hand

Submit = Callable[..., Hand]
Called = Callable[..., object]


@dataclass
class Relay:
    """Stands before Redis' socket, and breaks the connection where the answer to one command was due.

    Attributes:
        target: Redis' socket.
        word: what the command contains.
        then: what happens before the client comes again.
        due: whether the next answer is the one to lose.
        lost: how many were.
    """

    target: str
    word: bytes
    then: Callable[[], object]
    due: bool = False
    lost: int = 0

    async def serve(self, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        far, server = await asyncio.open_unix_connection(self.target)
        asking = asyncio.ensure_future(self.ask(near, server))
        while answer := await far.read(1 << 16):
            if self.due:
                self.due, self.lost = False, 1
                self.then()
                break
            client.write(answer)
        asking.cancel()
        server.close()
        client.close()

    async def ask(self, near: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while sent := await near.read(1 << 16):
            self.due = self.word in sent and not self.lost
            server.write(sent)
        server.close()


@pytest.fixture
def losing(valkey_url: str, short_dir: Path, data_dir: Path) -> Called:
    """Call a service function and lose the first reply to its command with a word in it."""

    async def called(
        function: Callable[[Services], Awaitable[object]], word: bytes, then: Callable[[], object]
    ) -> object:
        relay = Relay(valkey_url.removeprefix("unix://"), word, then)
        path = short_dir / "relay.sock"
        url = f"unix://{path}"
        relaying = await asyncio.start_unix_server(relay.serve, path)
        async with relaying, opened(Settings(redis_url=url, data_dir=data_dir), url) as services:
            answer = await function(services)
        assert relay.lost
        return answer

    def call(
        function: Callable[[Services], Awaitable[object]], word: bytes, then: Callable[[], object] = int
    ) -> object:
        return asyncio.run(called(function, word, then))

    return call


def test_a_cancel_is_one_and_the_job_leaves_the_line(submit: Submit, redis: Redis, losing: Called) -> None:
    first, second = submit(), submit()
    for hand in (second, first):
        canceled = losing(
            lambda services, job=hand.id: jobs.cancel(services, ANYBODY, job), b"cancel_requested"
        )
        assert isinstance(canceled, Generation)
        assert canceled.status is Status.CANCELED
    assert not redis.exists(*keys_of("shapes"))


def test_a_cancel_that_ends_a_running_job_is_one(submit: Submit, losing: Called) -> None:
    hand = submit()
    hand.take()
    hand.start()
    canceled = losing(
        lambda services: jobs.cancel(services, ANYBODY, hand.id),
        b"cancel_requested",
        lambda: hand.finish(Status.CANCELED),
    )
    assert isinstance(canceled, Generation)
    assert canceled.status is Status.CANCELED


def test_a_deletion_is_one(submit: Submit, redis: Redis, losing: Called) -> None:
    hand = submit()
    hand.take()
    hand.start()
    hand.finish()
    losing(lambda services: jobs.delete(services, ANYBODY, hand.id), b"ZREM")
    assert not redis.keys(f"*{hand.id}*")
