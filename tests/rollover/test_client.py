"""The clients against a real server."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

import rollover
from contracts.beats import WorkerState
from rollover import AsyncClient, Client
from rollover import client as client_module
from rollover.display import quote_lines
from tests.app.hand import PNG, Hand, beat
from tests.ports import nobody
from tests.rollover.unreliable import HTML, busy, canned, limited, unreliable

Hands = Callable[[str], Hand]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses, which are for a server that restarts."""
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.05)


def finished(client: Client, hand: Hands, candidates: int = 3) -> str:
    """A job that ended with success; its id."""
    job = client.submit("a red circle")
    moved = hand(job.id)
    moved.start()
    moved.search(1, candidates)
    moved.preview()
    moved.finish()
    return job.id


def test_a_submission_says_only_what_the_caller_said(client: Client) -> None:
    job = client.submit("a red circle", reward="brightness", nfe=99, seed=7, budget={"patience": 5})
    assert job.status == "queued"
    assert not job.ended
    assert job.request["budget"] == {"nfe": 99, "seconds": None, "target_reward": None, "patience": 5}
    assert [term["name"] for term in job.request["reward"]] == ["brightness"]
    assert job.request["seed"] == 7
    assert job.progress.nfe_budget == 99


def test_the_whole_document_of_a_finished_job(client: Client, hand: Hands) -> None:
    job = client.get(finished(client, hand))
    assert job.ended
    assert job.result
    assert job.result.first_reward == 0.1
    image = job.result.images[0]
    assert (image.reward, image.width, image.held_out) == (0.5, 64, {"scene_exact": 0.0})
    assert client.image(job.id) == PNG
    assert list(client.images(job.id)) == [PNG]
    assert [json.loads(line)["nfe"] for line in client.trace(job.id).splitlines()] == [1, 2, 3]
    assert client.trace(job.id, "csv").startswith(b"seq,")


def test_events_come_in_order_and_end(client: Client, hand: Hands) -> None:
    job_id = finished(client, hand)
    events = list(client.events(job_id))
    assert [event.seq for event in events] == list(range(1, 8))
    assert [event.type for event in events] == ["queued", "started", *["candidate"] * 3, "level", "completed"]
    assert events[-1].final
    assert client.preview(job_id, events[5].seq) == PNG
    assert [event.seq for event in client.events(job_id, after=5)] == [6, 7]
    assert list(client.events(job_id, after=7)) == []


def test_events_come_while_the_job_runs(client: Client, hand: Hands) -> None:
    job = client.submit("a red circle")
    events = client.events(job.id)
    assert next(events).type == "queued"
    moved = hand(job.id)
    moved.start()
    assert next(events).type == "started"
    moved.search(1, 1)
    assert next(events).data["nfe"] == 1
    moved.finish()
    assert [event.type for event in events] == ["completed"]


def test_a_stream_that_is_cut_goes_on_without_gap_or_repeat(server: str, client: Client, hand: Hands) -> None:
    job_id = finished(client, hand, candidates=20)
    with unreliable(server, 300, 1500, 700, 2500) as proxy, Client(proxy.url) as far:
        events = list(far.events(job_id))
    assert proxy.connections > 3
    assert [event.seq for event in events] == list(range(1, 25))
    assert events == list(client.events(job_id))


def test_a_stream_that_never_comes_back_is_an_error(server: str, client: Client, hand: Hands) -> None:
    job_id = finished(client, hand)
    with unreliable(server, *[1] * 20) as proxy, Client(proxy.url) as far:
        with pytest.raises(rollover.ConnectionFailedError, match="rollover serve"):
            list(far.events(job_id))
        assert proxy.connections == client_module.STREAM_ATTEMPTS


def test_a_server_that_is_away_for_a_moment_is_a_break_in_the_stream(
    server: str, client: Client, hand: Hands
) -> None:
    job_id = finished(client, hand, candidates=20)
    with unreliable(server, busy(0), 1500, busy(1)) as proxy, Client(proxy.url) as far:
        began = time.monotonic()
        assert [event.seq for event in far.events(job_id)] == list(range(1, 25))
        assert time.monotonic() - began >= 1
    assert proxy.connections == 4


def test_a_stream_whose_server_stays_away_says_so(server: str) -> None:
    with unreliable(server, *[busy(0)] * 20) as proxy, Client(proxy.url) as far:
        with pytest.raises(rollover.UnavailableError, match=r"The store is away\."):
            list(far.events("gen_any"))
        assert proxy.connections == client_module.STREAM_ATTEMPTS


@pytest.mark.usefixtures("redis_url")  # empty: the test before may have made keys
def test_a_repeated_call_waits_as_long_as_the_server_asks(server: str) -> None:
    with unreliable(server, busy(1)) as proxy, Client(proxy.url) as far:
        began = time.monotonic()
        assert far.strategies()
        assert time.monotonic() - began >= 1


def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(server: str) -> None:
    with unreliable(server, busy(3600), busy(3600)) as proxy, Client(proxy.url) as far:
        for call in (far.strategies, lambda: list(far.events("gen_any"))):
            with pytest.raises(rollover.UnavailableError) as refused:
                call()
            assert refused.value.retry_after == 3600
        assert proxy.connections == 2


def test_a_submission_whose_answer_is_lost_is_one_job(server: str, client: Client) -> None:
    with unreliable(server, 1, 1) as proxy, Client(proxy.url) as far:
        job = far.submit("a red circle")
    assert proxy.connections == 3
    assert [item.id for item in client.list().items] == [job.id]


def test_a_cancel_whose_answer_is_lost_has_worked(server: str, client: Client) -> None:
    job = client.submit("a red circle")
    with unreliable(server, 1) as proxy, Client(proxy.url) as far:
        assert far.cancel(job.id).status == "canceled"
        with pytest.raises(rollover.ConflictError):
            far.cancel(job.id)


def test_waiting_ends_with_the_job(client: Client, hand: Hands) -> None:
    job = client.submit("a red circle")
    with pytest.raises(rollover.WaitTimeoutError, match=job.id):
        client.wait(job.id, within=0.2)
    moved = hand(job.id)
    moved.start()
    threading.Timer(0.2, moved.finish).start()
    assert client.wait(job.id, within=20).status == "succeeded"


def test_a_limit_on_requests_is_a_pause_for_whoever_waits(server: str, client: Client, hand: Hands) -> None:
    job_id = finished(client, hand)
    with unreliable(server, limited(0), limited(1)) as proxy, Client(proxy.url) as far:
        began = time.monotonic()
        assert far.wait(job_id, within=20).status == "succeeded"
        assert time.monotonic() - began >= 1
        assert proxy.connections == 3
    with unreliable(server, 300, limited(1)) as proxy, Client(proxy.url) as far:
        assert [event.seq for event in far.events(job_id)] == list(range(1, 8))
        assert proxy.connections == 3

    async def wait() -> None:
        with unreliable(server, limited(0), limited(0)) as proxy:
            async with AsyncClient(proxy.url) as far:
                assert (await far.wait(job_id, within=20)).ended
            assert proxy.connections == 3
        with unreliable(server, 300, limited(0)) as proxy:
            async with AsyncClient(proxy.url) as far:
                assert [event.seq async for event in far.events(job_id)] == list(range(1, 8))

    asyncio.run(wait())


def test_a_limit_ends_what_asks_once_and_what_would_wait_for_long(server: str) -> None:
    with unreliable(server, limited(1), *[limited(3600)] * 2) as proxy, Client(proxy.url) as far:
        for call in (far.get, far.wait, lambda job: list(far.events(job))):
            with pytest.raises(rollover.UnavailableError, match="rate_limited"):
                call("gen_any")
        assert proxy.connections == 3


def test_a_wait_with_an_end_is_not_made_longer_by_a_limit(server: str) -> None:
    with unreliable(server, *[limited(30)] * 2) as proxy, Client(proxy.url) as far:
        began = time.monotonic()
        with pytest.raises(rollover.WaitTimeoutError):
            far.wait("gen_any", within=0.2)
        assert time.monotonic() - began < 20
        assert proxy.connections == 2


def test_a_wait_looks_again_when_the_server_says(server: str, client: Client, hand: Hands) -> None:
    job = client.submit("a red circle")
    unfinished = canned("200 OK", json.dumps(job.raw), Retry_After="1")
    moved = hand(job.id)
    moved.start()
    moved.finish()
    with unreliable(server, unfinished) as proxy, Client(proxy.url) as far:
        began = time.monotonic()
        assert far.wait(job.id).ended
        assert time.monotonic() - began >= 1
        assert proxy.connections == 2


def test_a_held_submission_answers_with_the_end(client: Client, redis: Redis, hand: Hands) -> None:
    beat(redis, WorkerState.READY)

    def work() -> None:
        while not (jobs := client.list().items):
            pass
        moved = hand(jobs[0].id)
        moved.start()
        moved.finish()

    thread = threading.Thread(target=work)
    thread.start()
    assert client.submit("a red circle", hold=20).status == "succeeded"
    thread.join()


def test_listing_pages(client: Client) -> None:
    ids = [client.submit("a red circle").id for _ in range(3)]
    page = client.list(limit=2)
    assert [job.id for job in page.items] == ids[:0:-1]
    assert page.next
    rest = client.list(limit=2, cursor=page.next)
    assert ([job.id for job in rest.items], rest.next) == (ids[:1], None)
    assert client.list(status="running").items == ()


def test_cancel_and_delete(client: Client) -> None:
    job = client.submit("a red circle")
    with pytest.raises(rollover.ConflictError, match="wrong_state"):
        client.delete(job.id)
    assert client.cancel(job.id).status == "canceled"
    client.delete(job.id)
    with pytest.raises(rollover.NotFoundError):
        client.get(job.id)


def test_the_catalogue(client: Client) -> None:
    assert [model["id"] for model in client.models()] == ["shapes"]
    assert "brightness" in [reward["name"] for reward in client.rewards()]
    assert "rbf" in [strategy["name"] for strategy in client.strategies()]


def test_a_refused_request_names_each_field(client: Client) -> None:
    with pytest.raises(rollover.InvalidRequestError) as refused:
        client.submit("", nfe=0, colour="red")
    error = refused.value
    assert (error.status, error.code) == (422, "invalid_request")
    assert {field.pointer for field in error.errors} == {"/prompt", "/budget/nfe", "/colour"}
    assert "/budget/nfe: " in str(error)


@pytest.mark.parametrize("send", ["submit", "quote"])
def test_an_image_is_sent_as_it_is(client: Client, server: str, tmp_path: Path, send: str) -> None:
    (tmp_path / "photo.png").write_bytes(PNG)
    for image in (PNG, tmp_path / "photo.png"):
        with pytest.raises(rollover.InvalidRequestError, match="/image: Must be null for model 'shapes'"):
            getattr(client, send)("a red circle", image=image)

    async def sent() -> None:
        async with AsyncClient(server) as other:
            await getattr(other, send)("a red circle", image=PNG)

    with pytest.raises(rollover.InvalidRequestError, match="/image: Must be null"):
        asyncio.run(sent())
    with pytest.raises(rollover.InvalidArgumentError, match=r"nowhere\.png cannot be read: No such file"):
        getattr(client, send)("a red circle", image=tmp_path / "nowhere.png")
    with pytest.raises(rollover.InvalidArgumentError, match=r"its pathlib\.Path; this is a str"):
        getattr(client, send)("a red circle", image=str(tmp_path / "photo.png"))


def test_an_unknown_job_is_not_found(client: Client) -> None:
    for call in (
        client.get,
        client.cancel,
        client.delete,
        client.trace,
        lambda job: list(client.events(job)),
    ):
        with pytest.raises(rollover.NotFoundError) as missing:
            call("gen_none")
        assert missing.value.code == "generation_not_found"


def test_a_server_that_is_not_there() -> None:
    with (
        nobody() as port,
        Client(f"http://127.0.0.1:{port}") as lost,
        pytest.raises(rollover.ConnectionFailedError) as failed,
    ):
        lost.models()
    assert f"127.0.0.1:{port}" in str(failed.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:abc",
        "http://[bad",
        "http://127.0.0.1:70000",
        "127.0.0.1:8000",
        "ftp://here",
        "http://",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(rollover.InvalidArgumentError, match=r"http://HOST:PORT") as refused:
            kind(url)
        assert repr(url) in str(refused.value)


def test_a_number_that_json_does_not_have_is_refused(client: Client) -> None:
    with pytest.raises(rollover.InvalidArgumentError, match="finite"):
        client.submit("a red circle", budget={"target_reward": float("nan")})
    assert client.list().items == ()


def test_a_value_that_json_has_no_form_for_is_refused(client: Client) -> None:
    with pytest.raises(rollover.InvalidArgumentError, match="form in JSON"):
        client.submit("a red circle", metadata={"tags": {"a", "b"}})
    with pytest.raises(rollover.InvalidArgumentError, match=r"`budget` is 30: it is a dictionary"):
        client.submit("a red circle", nfe=30, budget=30)
    assert client.list().items == ()


def test_limits_that_are_none_are_none(client: Client) -> None:
    assert client.submit("a red circle", nfe=30, budget=None).request["budget"]["nfe"] == 30


@pytest.mark.parametrize("key", ["rk_1\n", "rk_é", "rk 1"])
def test_a_key_that_no_header_carries_is_refused_and_not_repeated(key: str, server: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(rollover.InvalidArgumentError, match=r"ROLLOVER_API_KEY\) has .*line end") as said:
            kind(server, api_key=key)
        assert key not in str(said.value)
    refused = pytest.raises(rollover.InvalidArgumentError, match=r"^The idempotency key has")
    with Client(server) as client, refused:
        client.submit("a red circle", idempotency_key=key)


def test_a_parameter_that_is_refused_is_named(client: Client) -> None:
    with pytest.raises(rollover.InvalidRequestError, match=r"\n  limit: .*100") as refused:
        client.list(limit=1000)
    assert [field.parameter for field in refused.value.errors] == ["limit"]


def test_another_program_on_the_port_is_named(server: str) -> None:
    with unreliable(server, HTML, HTML) as proxy, Client(proxy.url) as far:
        for call in (far.models, lambda: list(far.events("gen_any"))):
            with pytest.raises(rollover.UnexpectedAnswerError, match=r"text/html.*another program"):
                call()
        assert proxy.connections == 2


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    client: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.models()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client(server) as direct:
        assert direct.models()


def test_the_async_client_does_the_same(server: str, client: Client, hand: Hands) -> None:
    job_id = finished(client, hand, candidates=20)

    async def use() -> None:
        with unreliable(server, 2000, 2500) as proxy:
            async with AsyncClient(proxy.url) as far:
                seqs = [event.seq async for event in far.events(job_id)]
                assert seqs == list(range(1, 25))
                assert [event async for event in far.events(job_id, after=24)] == []
        with unreliable(server, busy(0), 1500, busy(1)) as proxy:
            async with AsyncClient(proxy.url) as far:
                assert [event.seq async for event in far.events(job_id)] == list(range(1, 25))
        with unreliable(server, busy(0), HTML, HTML) as proxy:
            async with AsyncClient(proxy.url) as far:
                with pytest.raises(rollover.UnexpectedAnswerError):
                    await far.models()
                with pytest.raises(rollover.UnexpectedAnswerError):
                    await anext(far.events(job_id))
        queued = client.submit("a red circle")
        with unreliable(server, 1) as proxy:
            async with AsyncClient(proxy.url) as far:
                assert (await far.cancel(queued.id)).status == "canceled"
        client.delete(queued.id)
        async with AsyncClient(server) as near:
            job = await near.submit("a red circle", reward="brightness", nfe=99)
            assert (await near.get(job.id)).progress.nfe_budget == 99
            assert (await near.cancel(job.id)).status == "canceled"
            assert (await near.wait(job.id, within=5)).ended
            assert {item.id for item in (await near.list()).items} == {job.id, job_id}
            assert [content async for content in near.images(job_id)] == [PNG]
            assert await near.preview(job_id, 23) == PNG
            assert len((await near.trace(job_id)).splitlines()) == 20
            assert [model["id"] for model in await near.models()] == ["shapes"]
            assert await near.rewards()
            assert await near.strategies()
            await near.delete(job.id)
            with pytest.raises(rollover.NotFoundError):
                await near.get(job.id)
            with pytest.raises(rollover.WaitTimeoutError):
                await near.wait((await near.submit("a blue square")).id, within=0.1)

    asyncio.run(use())


def test_a_quote_runs_nothing(client: Client, server: str) -> None:
    quote = client.quote("a red circle", reward="brightness", nfe=100)
    assert (quote["plan"]["nfe"], quote["request"]["reward"][0]["name"]) == (100, "brightness")

    async def quoted() -> dict[str, Any]:
        async with AsyncClient(server) as other:
            return await other.quote("a red circle", nfe=100, search={"strategy": "best_of_n"})

    assert "10 runs of 10 steps" in quote_lines(asyncio.run(quoted()))
    svdd = quote_lines(client.quote("a red circle", nfe=99, search={"strategy": "svdd"}))
    assert "95 draws in 10 rounds, 4 to finish" in svdd
    zero_order = quote_lines(client.quote("a red circle", nfe=105, search={"strategy": "zero_order"}))
    assert re.search(r"^NFE +100 of 105\nplan +10 draws in 3 rounds$", zero_order, re.MULTILINE)
    assert "12 initial noises, 9 levels x 1 chain x 9 draws, 4 to finish" in quote_lines(quote)
    assert "not measured yet" in quote_lines(quote)
    assert client.list().items == ()
