"""The service under load: many clients at once, a long queue, cancels; all over HTTP on loopback.

python -m benchmarks.load

What is compared is measured in one run, request beside request: the machine may have other work.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from app.enqueue import Enqueuer
from benchmarks.loopback import Connection, Seen
from benchmarks.tables import save, table
from contracts.jobs import Record
from contracts.resolution import accept
from contracts.settings import Settings
from rollover.processes import Child, Command
from rollover.serve import Stack, StackSettings, environment_of, module

PROMPT = "two red circles and a blue square"
BARE = "/healthz"
"""A route that only answers, in the same process and behind the same middleware."""
BARE_SHARE = 0.2
"""How often it is asked for in place of a job."""


@dataclass(frozen=True)
class Server:
    """A running API: its port, and the store behind it."""

    port: int
    redis_url: str


@contextmanager
def whole(folder: Path) -> Iterator[Server]:
    """`rollover serve` on a free port: Valkey, one worker of the bundled model, the API."""
    with Stack(StackSettings(port=0, data_dir=folder), print) as stack:
        port = urlsplit(stack.url).port
        assert port  # noqa: S101 -- a stack names its port
        yield Server(port, (folder / "redis.url").read_text())


@contextmanager
def without_worker(folder: Path, port: int) -> Iterator[Server]:
    """A Valkey and an API of their own, where every job waits."""
    settings = StackSettings(port=port, data_dir=folder)
    with Stack(settings, print).store() as redis_url:
        environment = {**environment_of(settings, redis_url, port), "ROLLOVER_MAX_QUEUE": "1000000"}
        api = Child(Command("api", module("app"), environment, folder / "api.log", 10.0))
        try:
            yield Server(port, redis_url)
        finally:
            api.stop()


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connection]:
    """A connection, as soon as there is a server."""
    while True:
        try:
            async with Connection(server.port) as connection:
                yield connection
                return
        except ConnectionRefusedError:
            await asyncio.sleep(0.1)


async def submitted(connection: Connection, nfe: int) -> str:
    """Submit a job; its URL."""
    body = json.dumps({"prompt": PROMPT, "budget": {"nfe": nfe}}).encode()
    status, answer = await connection.ask("POST", "/v1/generations", body)
    if status != 202:
        raise RuntimeError(f"a submission was answered with {status}: {answer.decode()}")
    return json.loads(answer)["urls"]["get"]


async def document(connection: Connection, url: str) -> dict[str, Any]:
    """A job document."""
    _, answer = await connection.ask("GET", url)
    return json.loads(answer)


def spent(job: dict[str, Any]) -> int:
    """NFE spent so far."""
    return job["progress"]["nfe_spent"]


async def reached(
    connection: Connection, url: str, condition: Callable[[dict[str, Any]], bool], every: float
) -> dict[str, Any]:
    """A job document once a condition holds, looked at so often (seconds)."""
    while not condition(found := await document(connection, url)):  # noqa: ASYNC110 -- what is awaited is in another process
        await asyncio.sleep(every)
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent stay under."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1000:.1f}"


async def crowd(server: Server, options: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    """Poll and stream jobs while the worker runs them.

    Each polling client asks once a second, as `Retry-After` says, for its job or now and then for `BARE` in
    its place: asked for right after a job, it would meet the server in the calm behind a burst of work.
    """
    async with connected(server) as connection:
        jobs = [await submitted(connection, options.nfe) for _ in range(options.jobs)]
    seen, ended = Seen(), asyncio.Event()

    async def poll(url: str, chosen: random.Random) -> None:
        await asyncio.sleep(chosen.random())
        async with Connection(server.port) as connection:
            while not ended.is_set():
                name, path = ("bare", BARE) if chosen.random() < BARE_SHARE else ("status", url)
                await seen.timed(name, connection, path)
                await asyncio.sleep(1.0)

    began = time.monotonic()
    pollers = [
        asyncio.create_task(poll(jobs[n % len(jobs)], random.Random(n)))  # noqa: S311 -- to be repeated
        for n in range(options.pollers)
    ]
    streams = [seen.followed(server.port, f"{jobs[n % len(jobs)]}/events") for n in range(options.streams)]
    outcomes = await asyncio.gather(*streams, return_exceptions=True)
    took = time.monotonic() - began
    ended.set()
    outcomes += await asyncio.gather(*pollers, return_exceptions=True)
    seen.errors += [repr(outcome) for outcome in outcomes if outcome is not None]
    ratio = percentile(seen.seconds["status"], 99) / percentile(seen.seconds["bare"], 99)
    rows = [
        [
            f"{options.pollers} polling, {options.streams} streaming: {name}",
            milliseconds(statistics.median(seen.seconds[name])),
            milliseconds(percentile(seen.seconds[name], 99)),
            text,
        ]
        for name, text in (("bare", ""), ("status", f"p99 {ratio:.2f} times"))
    ]
    facts = {
        "seconds": took,
        "requests": {name: len(values) for name, values in seen.seconds.items()},
        "events": seen.events,
        "errors": seen.errors,
        "p99_ratio": ratio,
    }
    return rows, facts


async def cancels(server: Server, options: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    """Cancel a running job, again and again: time from the request to the ended document, and of a step."""
    took, steps = [], []
    async with connected(server) as connection:
        for _ in range(options.cancels):
            url = await submitted(connection, 5000)
            before = await reached(connection, url, lambda job: job["progress"]["nfe_spent"] >= 40, 0.05)
            begun = time.perf_counter()
            await asyncio.sleep(1.0)
            done = (await document(connection, url))["progress"]["nfe_spent"] - before["progress"][
                "nfe_spent"
            ]
            steps.append((time.perf_counter() - begun) / max(done, 1))
            began = time.perf_counter()
            await connection.ask("POST", f"{url}/cancel")
            ended = await reached(connection, url, lambda job: job["status"] != "running", 0.01)
            took.append(time.perf_counter() - began)
            if ended["status"] != "canceled" or not ended["result"]:
                raise RuntimeError(f"a canceled job ended as {ended['status']}, or without its best so far")
    row = [
        f"cancel of a running job, {len(took)} times",
        milliseconds(statistics.median(took)),
        milliseconds(max(took)),
        f"an evaluation takes {milliseconds(statistics.median(steps))}",
    ]
    return [row], {"cancel_seconds": took, "seconds_per_nfe": steps}


def fill(server: Server, many: int) -> None:
    """Queue jobs as the API does."""
    with Redis.from_url(server.redis_url) as redis:
        enqueuer = Enqueuer(redis, Settings(redis_url=server.redis_url, max_queue=1_000_000))
        for _ in range(many):
            enqueuer.submit(Record.new(accept({"prompt": PROMPT})), "")


async def queues(
    short: Server, long: Server, options: argparse.Namespace
) -> tuple[list[list[str]], dict[str, Any]]:
    """Submit, read and cancel on two servers in turn, one with few jobs waiting and one with many."""
    lengths = {"short": 10, "long": options.queued}
    for server, many in ((short, lengths["short"]), (long, lengths["long"])):
        await asyncio.to_thread(fill, server, many)
    seconds: dict[str, dict[str, list[float]]] = {what: {"short": [], "long": []} for what in OPERATIONS}
    async with connected(short) as few, connected(long) as lots:
        for number in range(options.repeats + 10):
            both = [("short", few), ("long", lots)]
            for name, connection in both if number % 2 else reversed(both):
                took = await round_of(connection)
                if number >= 10:  # the first ones warm both up
                    for what in OPERATIONS:
                        seconds[what][name].append(took[what])
    rows, facts = [], {}
    for what, by in seconds.items():
        ratio = statistics.median(by["long"]) / statistics.median(by["short"])
        facts[what] = {"ratio": ratio, **by}
        rows += [
            [
                f"{what}, {lengths[name]} queued",
                milliseconds(statistics.median(by[name])),
                milliseconds(percentile(by[name], 99)),
                f"median {ratio:.2f} times" if name == "long" else "",
            ]
            for name in ("short", "long")
        ]
    return rows, facts


OPERATIONS = ("submit", "status", "cancel")


async def round_of(connection: Connection) -> dict[str, float]:
    """Submit a job, read it as the last of its queue, and cancel it; seconds of each."""
    took: dict[str, float] = {}

    async def timed(what: str, call: Awaitable[Any]) -> Any:  # noqa: ANN401 -- whatever the call gives
        began = time.perf_counter()
        answer = await call
        took[what] = time.perf_counter() - began
        return answer

    url = await timed("submit", submitted(connection, 200))
    found = await timed("status", document(connection, url))
    if found["progress"]["queue_position"] is None:
        raise RuntimeError("a job that waits has no place in the queue")
    await timed("cancel", connection.ask("POST", f"{url}/cancel"))
    return took


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pollers", type=int, default=500)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=20, help="that the worker runs meanwhile")
    parser.add_argument("--nfe", type=int, default=200)
    parser.add_argument("--cancels", type=int, default=20)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=300, help="of submit, read and cancel")
    parser.add_argument("--port", type=int, default=18300, help="this one and the next must be free")
    options = parser.parse_args(arguments)
    os.environ |= {"ROLLOVER_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    rows, data = [], {"settings": vars(options), "machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        with whole(Path(folder) / "whole") as server:
            for name, measure in (("cancels", cancels), ("crowd", crowd)):
                more, data[name] = asyncio.run(measure(server, options))
                rows += more
        with (
            without_worker(Path(folder) / "short", options.port) as short,
            without_worker(Path(folder) / "long", options.port + 1) as long,
        ):
            more, data["queues"] = asyncio.run(queues(short, long, options))
            rows += more
    save("load", data, table(["what", "median, ms", "p99 or largest, ms", ""], rows))
    print(f"errors: {len(data['crowd']['errors'])}", *data["crowd"]["errors"][:10], sep="\n  ")


if __name__ == "__main__":
    main()
