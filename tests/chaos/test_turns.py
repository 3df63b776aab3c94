"""The line of waiting jobs while those who take them, and the store itself, are killed."""

import itertools
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from app.enqueue import Enqueuer
from app.store import keys_of
from contracts.jobs import Record
from contracts.requests import PRIORITIES
from contracts.resolution import accept
from contracts.settings import Settings
from tests.chaos.taker import ENDED
from tests.chaos.valkey import Valkey
from tests.workers.conftest import wait_for

ROOT = Path(__file__).parents[2]
TURNS = 8
OWNERS = ("key_a", "key_b", "key_c")


@contextmanager
def submitting(settings: Settings) -> Iterator[list[str]]:
    """Submit without pause for three keys and at all priorities; yield the ids that were acknowledged."""
    acknowledged: list[str] = []
    ended = threading.Event()

    def submit(owner: str) -> None:
        with Redis.from_url(settings.redis_url or "") as raw:
            enqueuer = Enqueuer(raw, settings)
            for number in itertools.count():
                request = accept({"prompt": "x", "priority": PRIORITIES[number % 3]})
                try:
                    id_ = enqueuer.submit(Record.new(request, owner=owner), "").id
                except RedisError:
                    id_ = None
                if id_:
                    acknowledged.append(id_)
                if ended.wait(0.01):
                    return

    threads = [threading.Thread(target=submit, args=[owner]) for owner in OWNERS]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def taker(url: str) -> subprocess.Popen[bytes]:
    """Start a taker; it has imported what it needs when it is returned."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.taker", url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout
    assert process.stdout.readline() == b"begins\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill -9."""
    process.kill()
    process.communicate()


def places(redis: Any) -> list[str]:  # noqa: ANN401 (its types cover the async client too)
    """Every job wherever it is, as often as it is there."""
    waiting, line, _ = keys_of("shapes")
    lists = [redis.lrange(key, 0, -1) for key in (waiting, f"{waiting}:intermediate", ENDED)]
    behind = [member.partition(":")[0] for member in redis.zrange(line, 0, -1)]
    return sorted([*itertools.chain(*lists), *behind])


def leave_some(acknowledged: list[str]) -> None:
    """Wait until a job was submitted that nobody is there to take any more."""
    before = len(acknowledged) + len(OWNERS)  # each may have one under way, which was taken
    wait_for(lambda: len(acknowledged) > before)


def disturb(valkey: Valkey, takers: list[subprocess.Popen[bytes]], chosen: random.Random) -> None:
    """Kill takers, and now and then the store, and start them again."""
    for turn in range(1, TURNS + 1):
        time.sleep(chosen.uniform(0.4, 0.9))
        if turn % 3 == 0:
            valkey.kill()
            valkey.start()
        for index, each in enumerate(takers):
            if each.poll() is not None or chosen.random() < 0.5:
                end(each)
                takers[index] = taker(valkey.url)


def test_no_acknowledged_job_leaves_the_line_but_to_a_taker(short_dir: Path) -> None:
    with Valkey(short_dir) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        # Where takers take long to start, more wait than a server takes by default.
        with submitting(Settings(redis_url=valkey.url, max_queue=1_000_000)) as acknowledged:
            takers = [taker(valkey.url) for _ in range(2)]
            try:
                disturb(valkey, takers, random.Random(0))  # noqa: S311 -- to be repeated, not to be secret
                wait_for(lambda: redis.llen(ENDED))
            finally:
                for each in takers:
                    end(each)
            leave_some(acknowledged)
        found = places(redis)
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)
        ended: Any = redis.llen(ENDED)
        assert 0 < ended < len(found)
