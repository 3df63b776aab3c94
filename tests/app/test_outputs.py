"""Events, trace, images and previews."""

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from contracts.events import decode
from contracts.settings import Settings
from contracts.transitions import write_keys
from tests.app.conftest import serving
from tests.app.hand import PNG, Hand
from tests.conftest import running_valkey

Submit = Callable[..., Hand]


@dataclass
class Message:
    """One server-sent event as a client reads it."""

    id: int
    event: str
    data: dict[str, Any]


def messages(lines: Iterator[str]) -> Iterator[Message]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Message(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def events(client: httpx.Client, hand: Hand, **headers: str) -> list[Message]:
    with client.stream("GET", f"/v1/generations/{hand.id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(messages(response.iter_lines()))


def ended(submit: Submit) -> Hand:
    hand = submit()
    hand.start()
    hand.search(1, 3)
    hand.preview()
    hand.finish()
    return hand


def test_events_of_an_ended_job(submit: Submit, client: httpx.Client) -> None:
    seen = events(client, ended(submit))
    assert [m.event for m in seen] == ["queued", "started", *["candidate"] * 3, "level", "completed"]
    assert [m.id for m in seen] == [m.data["seq"] for m in seen] == list(range(1, 8))
    assert all(m.event == m.data["type"] == decode(json.dumps(m.data)).type for m in seen)


def test_events_as_they_come(submit: Submit, client: httpx.Client) -> None:
    hand = submit()

    def work() -> None:
        hand.start()
        for nfe in range(1, 200):
            hand.search(nfe, nfe)
        hand.finish()

    worker = threading.Thread(target=work)
    worker.start()
    seen = events(client, hand)
    worker.join()
    assert [m.id for m in seen] == list(range(1, 203))
    assert seen[-1].event == "completed"


def test_an_event_arrives_at_once(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    with client.stream("GET", f"/v1/generations/{hand.id}/events") as response:
        lines = response.iter_lines()
        assert next(messages(lines)).event == "queued"
        hand.start()
        # What only the next look at the store finds comes after a comment, which each quiet look leaves.
        assert [next(lines), next(lines)] == ["id: 2", "event: started"]


@pytest.mark.parametrize("by", ["header", "query"])
def test_reconnecting_again_and_again_gives_every_event_once(
    submit: Submit, client: httpx.Client, by: str
) -> None:
    hand = submit()

    def work() -> None:
        hand.start()
        for nfe in range(1, 150):
            hand.search(nfe, nfe)
        hand.finish()

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[int] = []
    final = False
    while not final:
        last = str(seen[-1]) if seen else "0"
        url = f"/v1/generations/{hand.id}/events"
        options: dict[str, Any] = (
            {"headers": {"Last-Event-ID": last}} if by == "header" else {"params": {"after": last}}
        )
        with client.stream("GET", url, **options) as response:
            for count, message in enumerate(messages(response.iter_lines()), start=1):
                seen.append(message.id)
                final = message.event == "completed"
                if count == 7:
                    break
    worker.join()
    assert seen == list(range(1, 153))


def test_a_client_that_has_everything_is_told_to_stop(submit: Submit, client: httpx.Client) -> None:
    hand = ended(submit)
    for last in ("7", "100"):
        response = client.get(f"/v1/generations/{hand.id}/events", headers={"Last-Event-ID": last})
        assert (response.status_code, response.content) == (204, b"")


def test_the_header_wins_over_the_parameter(submit: Submit, client: httpx.Client) -> None:
    hand = ended(submit)
    response = client.get(f"/v1/generations/{hand.id}/events?after=1", headers={"Last-Event-ID": "6"})
    assert [m.id for m in messages(iter(response.text.split("\n")))] == [7]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the quiet interval of a stream short."""
    monkeypatch.setattr("app.store.BLOCK_MS", 100)


@pytest.mark.usefixtures("quick")
def test_a_quiet_stream_is_kept_open(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    with client.stream("GET", f"/v1/generations/{hand.id}/events") as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": waiting"
        hand.start()
        assert next(messages(lines)).event == "started"


@pytest.mark.usefixtures("quick")
def test_a_stream_ends_where_nothing_can_follow(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    deleted = submit()
    with client.stream("GET", f"/v1/generations/{deleted.id}/events") as response:
        stream = messages(response.iter_lines())
        assert next(stream).event == "queued"
        redis.delete(*write_keys(deleted.id))
        assert list(stream) == []


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_stream_from_beyond_the_last_event_begins_after_it(
    submit: Submit, client: httpx.Client, by: str
) -> None:
    hand = submit()
    options: dict[str, Any] = (
        {"headers": {"Last-Event-ID": "100"}} if by == "header" else {"params": {"after": "100"}}
    )
    with client.stream("GET", f"/v1/generations/{hand.id}/events", **options) as response:
        hand.start()
        hand.finish()
        assert [message.id for message in messages(response.iter_lines())] == [2, 3]


def test_a_stream_ends_when_redis_goes_away(short_dir: Path) -> None:
    with running_valkey(short_dir) as (valkey, redis_url):
        settings = Settings(redis_url=redis_url, data_dir=short_dir)
        with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
            job = client.post("/v1/generations", json={"prompt": "x"}).json()
            with client.stream("GET", job["urls"]["events"]) as response:
                stream = messages(response.iter_lines())
                assert next(stream).event == "queued"
                valkey.stop()
                assert list(stream) == []
                valkey.start()


def trace(client: httpx.Client, hand: Hand, **options: Any) -> httpx.Response:  # noqa: ANN401
    return client.get(f"/v1/generations/{hand.id}/trace", **options)


def test_the_trace_of_a_running_and_of_an_ended_job(
    submit: Submit, client: httpx.Client, data_dir: Path
) -> None:
    hand = submit()
    assert trace(client, hand).json()["candidates"] == []
    hand.start()
    hand.search(1, 3)
    running = trace(client, hand).json()
    assert (running["object"], running["generation"], running["status"]) == ("trace", hand.id, "running")
    assert [c["nfe"] for c in running["candidates"]] == [1, 2, 3]
    hand.finish()
    assert trace(client, hand).json()["candidates"] == running["candidates"]
    (data_dir / "artifacts" / hand.id / "trace.jsonl").unlink()
    assert trace(client, hand).json()["candidates"] == running["candidates"]


def test_the_trace_of_an_ended_job_is_its_artifact(
    submit: Submit, client: httpx.Client, redis: Redis
) -> None:
    hand = ended(submit)
    before = trace(client, hand).json()
    redis.delete(f"rollover:job:{hand.id}:events")
    assert trace(client, hand).json() == before
    assert len(before["candidates"]) == 3


@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        ("", "", "application/json"),
        ("*/*", "", "application/json"),
        ("text/csv", "", "text/csv; charset=utf-8"),
        ("application/jsonl", "", "application/jsonl"),
        ("application/x-ndjson", "", "application/jsonl"),
        ("text/csv;q=0.5, application/jsonl;q=0.9", "", "application/jsonl"),
        ("text/html, text/csv;q=x", "", "application/json"),
        ("text/csv", "jsonl", "application/jsonl"),
        ("application/json", "csv", "text/csv; charset=utf-8"),
    ],
)
def test_the_trace_is_written_as_asked(
    submit: Submit, client: httpx.Client, accept: str, query: str, media_type: str
) -> None:
    hand = ended(submit)
    params = {"format": query} if query else {}
    response = trace(client, hand, headers={"Accept": accept}, params=params)
    assert response.headers["content-type"] == media_type
    if "jsonl" in media_type:
        rows = [json.loads(line) for line in response.text.splitlines()]
        assert [(row["nfe"], row["rewards"]) for row in rows] == [
            (n, {"scene_match": 0.5}) for n in (1, 2, 3)
        ]
    elif "csv" in media_type:
        table = list(csv.DictReader(io.StringIO(response.text)))
        assert [(row["nfe"], row["rewards.scene_match"], row["parent"]) for row in table] == [
            (n, "0.5", "") for n in "123"
        ]
    else:
        assert len(response.json()["candidates"]) == 3


def test_a_trace_is_not_sent_twice(submit: Submit, client: httpx.Client) -> None:
    hand = ended(submit)
    tag = trace(client, hand).headers["etag"]
    assert trace(client, hand, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_an_image(submit: Submit, client: httpx.Client, output_format: str) -> None:
    hand = submit(output_format=output_format)
    url = f"/v1/generations/{hand.id}/images/0"
    hand.start()
    early = client.get(url)
    assert (early.status_code, early.json()["code"]) == (404, "artifact_not_found")
    hand.finish()
    response = client.get(url)
    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["content-type"] == f"image/{output_format}"
    assert "immutable" in response.headers["cache-control"]
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["etag"]) == (
        str(len(PNG)),
        response.headers["etag"],
    )
    again = client.get(url, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/v1/generations/{hand.id}/images/1").json()["code"] == "artifact_not_found"


def test_a_preview(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    seq = hand.preview()
    response = client.get(f"/v1/generations/{hand.id}/previews/{seq}")
    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["content-type"] == "image/png"
    for other in (seq - 1, seq + 1):
        missing = client.get(f"/v1/generations/{hand.id}/previews/{other}")
        assert (missing.status_code, missing.json()["code"]) == (404, "artifact_not_found")


def test_a_preview_is_not_there_before_its_event(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.file(f"{hand.id}/previews/3.png", PNG)
    assert client.get(f"/v1/generations/{hand.id}/previews/3").status_code == 404


def test_an_artifact_store_that_cannot_be_read(submit: Submit, client: httpx.Client, data_dir: Path) -> None:
    hand = ended(submit)
    path = data_dir / "artifacts" / hand.id / "images" / "0.png"
    path.unlink()
    path.mkdir()
    response = client.get(f"/v1/generations/{hand.id}/images/0")
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
