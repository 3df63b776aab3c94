"""The whole service with its artifacts on an S3 server: moto's, spoken to over HTTP."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from contracts.keys import checkpoints_path
from rollover import Client, Generation
from rollover.serve import Stack, StackSettings
from tests.chaos.processes import engine_of
from tests.workers.conftest import wait_for
from workers.store import REST

PREFIX = "artifacts/some/prefix"


@dataclass
class Bucket:
    """The server, which can go away and come back with what it had, and a view of what it holds."""

    server: ThreadedMotoServer
    files: Any

    def names(self, generation: str) -> list[str]:
        """The objects of a generation."""
        return self.files.find(f"{PREFIX}/{generation}")

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        host, port = self.server.get_host_and_port()
        self.server = ThreadedMotoServer(host, port, verbose=False)
        self.server.start()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = s3fs.S3FileSystem(use_listings_cache=False)
        files.mkdir("artifacts")
        bucket = Bucket(server, files)
        yield bucket
        bucket.go_away()


@pytest.fixture(scope="module")
def stack(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    assert bucket
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
        patch.setenv("ROLLOVER_DEVICE", "cpu")
        folder = tmp_path_factory.mktemp("var")
        with Stack(StackSettings(port=0, data_dir=folder, artifacts_url=f"s3://{PREFIX}"), print) as stack:
            yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def submit(client: Client, nfe: int = 60, **fields: Any) -> Generation:  # noqa: ANN401
    return client.submit("a red circle", reward="brightness", nfe=nfe, held_out=[], **fields)


def picture(client: Client, job_id: str) -> bytes:
    """The image of a job that must end well, as it was meant to be."""
    job = client.wait(job_id, within=120)
    assert job.result, job.error
    content = client.image(job.id)
    assert hashlib.sha256(content).hexdigest() == job.result.images[0].sha256
    return content


def test_a_job_leaves_on_s3_what_it_shows_and_delete_removes_all_of_it(
    client: Client, bucket: Bucket
) -> None:
    job, other = submit(client), submit(client, seed=2)
    picture(client, job.id)
    picture(client, other.id)
    kinds = {name.removeprefix(f"{PREFIX}/{job.id}/").partition("/")[0] for name in bucket.names(job.id)}
    assert kinds == {"images", "previews", "trace.jsonl", "checkpoints"}
    levels = [event for event in client.events(job.id) if event.type == "level"]
    assert client.preview(job.id, levels[0].seq).startswith(b"\x89PNG")
    assert len(client.trace(job.id).splitlines()) == 60
    client.delete(job.id)
    assert bucket.names(job.id) == []
    assert bucket.names(other.id)


def struck(client: Client, bucket: Bucket, stack: Stack) -> str:
    """A job whose engine was killed once a state was stored; where the job was faster, it is done again."""
    while True:
        job = submit(client, 400, seed=3)
        wait_for(lambda job=job: bucket.names(checkpoints_path(job.id)))
        wait_for(lambda job=job: client.get(job.id).progress.nfe_spent > 50)
        engine = engine_of(stack.pids["worker-shapes"])
        assert engine
        os.kill(engine, signal.SIGKILL)
        if any(event.type == "resumed" for event in client.events(job.id)):
            return job.id


def test_a_killed_engine_goes_on_from_its_state_on_s3(client: Client, bucket: Bucket, stack: Stack) -> None:
    undisturbed = picture(client, submit(client, 400, seed=3).id)
    job = struck(client, bucket, stack)
    assert picture(client, job) == undisturbed
    [resumed] = [event for event in client.events(job) if event.type == "resumed"]
    assert resumed.data["from_nfe"] >= 25
    wait_for(lambda: len(bucket.names(checkpoints_path(job))) == 1)  # others go once the job has ended


def test_while_s3_is_away_nothing_fails_that_can_wait(client: Client, bucket: Bucket, stack: Stack) -> None:
    shown = submit(client)
    picture(client, shown.id)
    bucket.go_away()
    try:
        answer = httpx.get(f"{stack.url}/v1/generations/{shown.id}/images/0", timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"]
        job = submit(client)
        wait_for(lambda: client.get(job.id).progress.nfe_spent == 60)
        assert client.get(job.id).status == "running"
    finally:
        bucket.come_back()
    picture(client, job.id)
    picture(client, shown.id)
    time.sleep(REST)  # or the next test's job would find the worker still sparing the store
