"""Real processes over HTTP: what a client sees of jobs that run, wait, fail and are canceled."""

import hashlib
import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from rollover import Client, Generation
from rollover.serve import Stack
from tests.chaos.processes import engine_of
from tests.conftest import ENDLESS
from tests.rollover.unreliable import unreliable
from tests.workers.conftest import wait_for


def submit(client: Client, nfe: int = 60, **fields: Any) -> Generation:  # noqa: ANN401
    return client.submit("a red circle", reward="brightness", nfe=nfe, held_out=[], **fields)


def complete(client: Client, job_id: str) -> list[str]:
    """Types of all events, which must be numbered without gap and end with one final event."""
    events = list(client.events(job_id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.final for event in events] == [False] * (len(events) - 1) + [True]
    assert events[0].type == "queued"
    return [event.type for event in events]


def until(client: Client, job_id: str, nfe: int) -> None:
    """Wait until a job has spent so much."""
    wait_for(lambda: client.get(job_id).progress.nfe_spent >= nfe)


def logged(stack: Stack, program: str) -> list[dict[str, Any]]:
    """The lines of a program's log that are whole."""
    text = (stack.settings.data_dir / "logs" / f"{program}.log").read_text()
    # Libraries written in C++ say what they have to say in their own way.
    return [
        json.loads(line) for line in text.splitlines(keepends=True) if line[:1] == "{" and line[-1] == "\n"
    ]


def test_from_prompt_to_picture(client: Client) -> None:
    job = client.wait(submit(client).id, within=60)
    assert job.status == "succeeded", job.error
    assert job.result
    image = job.result.images[0]
    content = client.image(job.id)
    assert hashlib.sha256(content).hexdigest() == image.sha256
    assert Image.open(io.BytesIO(content)).size == (64, 64)
    trace = [json.loads(line) for line in client.trace(job.id).splitlines()]
    assert len(trace) == job.usage["nfe_spent"] == 60
    assert max(entry["reward"] for entry in trace) == image.reward
    types = complete(client, job.id)
    assert types.count("candidate") == 60
    previews = [event for event in client.events(job.id) if event.type == "level"]
    assert client.preview(job.id, previews[0].seq).startswith(b"\x89PNG")


def test_jobs_at_once_all_end_with_complete_streams(client: Client) -> None:
    with ThreadPoolExecutor(12) as pool:
        jobs = list(pool.map(lambda seed: submit(client, seed=seed), range(12)))
        streams = list(pool.map(lambda job: complete(client, job.id), jobs))
    assert len({job.id for job in jobs}) == 12
    assert [stream[-1] for stream in streams] == ["completed"] * 12
    assert {stream.count("candidate") for stream in streams} == {60}


def test_cancel_of_a_running_job_and_of_a_queued_one(client: Client) -> None:
    running, waiting, after = submit(client, ENDLESS), submit(client, ENDLESS), submit(client)
    until(client, running.id, 25)
    assert client.cancel(waiting.id).status == "canceled"
    client.cancel(running.id)
    ended = client.wait(running.id, within=60)
    assert ended.status == "canceled"
    assert ended.result
    assert 25 <= ended.usage["nfe_spent"] < ENDLESS
    assert client.image(running.id).startswith(b"\x89PNG")
    assert complete(client, running.id)[-1] == "canceled"
    assert client.wait(after.id, within=60).status == "succeeded"
    assert complete(client, waiting.id) == ["queued", "canceled"]
    assert client.get(waiting.id).result is None


def test_a_reader_who_is_cut_off_again_and_again_misses_nothing(client: Client, stack: Stack) -> None:
    job = submit(client, 400)
    with unreliable(stack.url, *[5000] * 5, *[20000] * 3) as proxy, Client(proxy.url) as far:
        seen = list(far.events(job.id))
        assert proxy.connections > 5
    assert seen == list(client.events(job.id))
    complete(client, job.id)


def test_a_reward_that_cannot_read_the_prompt_fails_the_job(client: Client) -> None:
    job = client.wait(client.submit("good morning", reward="scene_match", nfe=60).id, within=60)
    assert job.status == "failed"
    assert job.error
    assert job.error.code == "reward_failed"
    assert complete(client, job.id)[-1] == "failed"
    assert client.wait(submit(client).id, within=60).status == "succeeded"


def test_the_model_is_served(client: Client, stack: Stack) -> None:
    assert set(stack.pids) == {"valkey", "worker-shapes", "webhooks", "api"}
    [model] = client.models()
    assert model["available"] is True


@pytest.mark.parametrize("strategy", ["base", "best_of_n"])
def test_other_strategies(client: Client, strategy: str) -> None:
    job = client.wait(submit(client, 30, search={"strategy": strategy}).id, within=60)
    assert job.status == "succeeded"
    assert complete(client, job.id).count("candidate") == (1 if strategy == "base" else 3)


def test_a_request_is_found_in_every_log_until_its_job_has_ended(stack: Stack, client: Client) -> None:
    body = {"prompt": "a red circle", "reward": "brightness", "held_out": [], "budget": {"nfe": ENDLESS}}
    headers = {"X-Request-Id": "followed-1"}
    job = httpx.post(f"{stack.url}/v1/generations", json=body, headers=headers, timeout=60).json()["id"]
    until(client, job, 30)
    engine = engine_of(stack.pids["worker-shapes"])
    assert engine
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: client.get(job).raw["attempts"] == 2)
    client.cancel(job)
    assert client.wait(job, within=120).status == "canceled"
    [submitted] = [line for line in logged(stack, "api") if line.get("request") == "followed-1"]
    assert submitted["generation"] == job

    def told() -> list[dict[str, Any]]:
        return [line for line in logged(stack, "worker-shapes") if line.get("generation") == job]

    awaited = {
        ("workers.execution", 1, "begins"),
        ("workers.supervisor", 1, "execution lost"),
        ("workers.execution", 2, "begins"),
        ("workers.execution", 2, "ended as canceled"),
        ("workers.supervisor", 2, "execution done"),
    }

    def said() -> set[tuple[str, int, str]]:
        return {(line["logger"], line["attempt"], line["message"].split(" after")[0]) for line in told()}

    # The end is logged once it is written, and so after a client may have seen it.
    wait_for(lambda: awaited <= said())
    assert {line["request"] for line in told()} == {"followed-1"}


def test_a_search_is_compared_and_then_goes_on(client: Client) -> None:
    job = client.wait(submit(client, baseline=True, seed=3).id, within=60)
    assert job.result
    assert job.result.baseline
    content = client.baseline(job.id)
    assert hashlib.sha256(content).hexdigest() == job.result.baseline.image.sha256
    assert complete(client, job.id)[-2:] == ["baseline", "completed"]
    child = client.extend(job.id, 40)
    client.delete(job.id)
    child = client.wait(child.id, within=60)
    assert child.result
    assert child.result.images[0].reward >= job.result.images[0].reward
    assert child.usage["nfe_spent"] == complete(client, child.id).count("candidate") == 40
