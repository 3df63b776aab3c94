"""API, worker and webhooks over TLS, on a Redis that gives each no more than docs/operations.md says."""

import asyncio
import contextlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import NoPermissionError

from app.access import OPEN_SECONDS
from rollover import Client
from tests.app.webhooks.receiver import Receiver, receiving
from tests.chaos.valkey import Valkey
from tests.conftest import ENDLESS
from tests.ports import free_port
from tests.workers.conftest import wait_for

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
TLS = ROOT / "tests" / "app" / "webhooks" / "tls"
ADMIN = "admin:x@"
PROGRAMS = {
    "rollover-api": ["-m", "app"],
    "rollover-worker": ["-m", "workers", "--model", "shapes"],
    "rollover-webhooks": ["-m", "app.webhooks"],
}


def users() -> str:
    """The page's ACL file."""
    return PAGE.split("```acl\n")[1].split("```")[0]


@contextmanager
def tunnel(behind: Path) -> Iterator[str]:
    """TLS in front of a socket file, as a proxy has it: the wheel's Valkey is built without. Yields where."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "receiver.pem")
    places: list[str] = []
    started, loop = threading.Event(), asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(behind)
        try:
            await asyncio.gather(passed(reader, to_redis), passed(from_redis, writer))
        finally:
            to_redis.transport.abort()
            writer.transport.abort()

    async def until_stopped() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        places.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        started.set()
        await stopped.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # in which the loop closes what was aborted

    thread = threading.Thread(target=loop.run_until_complete, args=[until_stopped()])
    thread.start()
    started.wait()
    try:
        yield places[0]
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()


@dataclass
class Deployment:
    """The three programs, each with a user of its own."""

    url: str
    admin: str
    place: str
    receiver: Receiver

    def redis_url(self, user: str) -> str:
        return redis_url(user, self.place)

    def forget(self) -> None:
        with Redis.from_url(self.admin) as redis:
            redis.acl_log_reset()

    def refused(self) -> list[str]:
        """What Valkey refused anybody."""
        with Redis.from_url(self.admin, decode_responses=True) as redis:
            entries: Any = redis.acl_log()
        return [f"{each['username']}: {each['reason']} {each['object']}" for each in entries]


def redis_url(user: str, place: str) -> str:
    # The certificate is for another name.
    options = f"ssl_ca_certs={TLS / 'authority.pem'}&ssl_check_hostname=false"
    return f"rediss://{user}:SECRET@{place}/0?{options}"


@pytest.fixture(scope="module")
def deployment(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("acl")
    with ExitStack() as exits:
        port = free_port()
        (folder / "users.acl").write_text(f"{users()}user admin on >x ~* &* +@all\n")
        environment = {
            **os.environ,
            "ROLLOVER_DATA_DIR": str(folder),
            "ROLLOVER_PORT": str(port),
            "ROLLOVER_MODEL_PATHS": f"shapes={tiny_model}",
            "ROLLOVER_DEVICE": "cpu",
            "ROLLOVER_MAX_NFE": str(ENDLESS),
            "ROLLOVER_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "OMP_NUM_THREADS": "1",
        }
        short = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="valkey-")))
        valkey = exits.enter_context(Valkey(short, ADMIN, aclfile=str(folder / "users.acl")))
        place = exits.enter_context(tunnel(short / "valkey.sock"))
        receiver = exits.enter_context(receiving())
        log = exits.enter_context((folder / "all.log").open("wb"))
        for user, arguments in PROGRAMS.items():
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**environment, "ROLLOVER_REDIS_URL": redis_url(user, place)},
                stdout=log,
                stderr=log,
            )
            exits.callback(process.wait)
            exits.callback(process.kill)
        yield Deployment(f"http://127.0.0.1:{port}", valkey.url, place, receiver)


def ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


def use_everything(client: Client, deployment: Deployment, headers: dict[str, str]) -> None:
    """Use every part of the service that Redis has a part in."""

    def submit(nfe: int, **more: Any) -> str:  # noqa: ANN401
        return client.submit("a red circle", reward="brightness", held_out=[], nfe=nfe, **more).id

    job = submit(60, webhook={"url": deployment.receiver.url}, idempotency_key="k")
    assert [event.type for event in client.events(job)][-1] == "completed"
    assert client.wait(client.extend(job, nfe=60).id, within=60).status == "succeeded"
    running = submit(ENDLESS)
    wait_for(lambda: client.get(running).progress.nfe_spent > 0)
    waiting = submit(60, priority="low")  # not before: it costs so little that it would go first
    client.cancel(waiting)
    client.delete(waiting)
    client.cancel(running)
    client.wait(running, within=60)
    with httpx.Client(base_url=deployment.url, headers=headers, timeout=60) as http:
        for path in ("/v1/generations", "/v1/models", "/metrics", "/readyz", "/v1/webhooks/secret"):
            assert http.get(path).status_code == 200, path
        assert http.post("/v1/quotes", json={"prompt": "a red circle"}).status_code == 200


def test_everything_runs_with_what_the_page_gives_each_program(deployment: Deployment) -> None:
    wait_for(lambda: ready(deployment.url))
    deployment.forget()  # what other tests had refused
    with Client(deployment.url) as client:
        use_everything(client, deployment, {})
    deployment.receiver.called(1)
    environment = {**os.environ, "ROLLOVER_REDIS_URL": deployment.redis_url("rollover-api")}
    limits = ["--requests-per-minute", "6000", "--nfe-per-day", str(2 * ENDLESS), "--concurrent", "4"]
    made = subprocess.run(
        [Path(sys.executable).with_name("rollover"), "keys", "create", "me", *limits],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    [key] = re.findall(r"^key +(\S+)$", made.stdout, re.MULTILINE)
    time.sleep(OPEN_SECONDS)
    with Client(deployment.url, api_key=key) as client:
        use_everything(client, deployment, {"Authorization": f"Bearer {key}"})
    deployment.receiver.called(2)
    assert deployment.refused() == []


@pytest.mark.parametrize("user", PROGRAMS)
@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "GET other", "SHUTDOWN"]
)
def test_a_program_that_is_taken_over_cannot_do_more(deployment: Deployment, user: str, command: str) -> None:
    with Redis.from_url(deployment.redis_url(user)) as redis, pytest.raises(NoPermissionError):
        redis.execute_command(*command.split())


def test_a_worker_that_is_taken_over_makes_no_keys_and_reads_no_secret(deployment: Deployment) -> None:
    with Redis.from_url(deployment.redis_url("rollover-worker")) as redis:
        for command in ("HSET rollover:keys x y", "GET rollover:webhooks:secret"):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command.split())


def test_a_server_of_an_unknown_authority_is_not_trusted(deployment: Deployment) -> None:
    url = f"rediss://rollover-api:SECRET@{deployment.place}/0?ssl_check_hostname=false"
    with Redis.from_url(url) as redis, pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        redis.ping()
