"""GET /metrics: what Prometheus reads."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from contracts.beats import WorkerState
from contracts.jobs import Seconds, Spent, Status, Usage
from contracts.keys import totals_key
from tests.app.hand import Hand, beat
from tests.app.test_bad_input import UNKNOWN_ID, refused
from tests.app.test_quotes import done

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def scraped(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_requests_are_counted_by_route_and_status(client: httpx.Client) -> None:
    names = [
        ("rollover_http_requests_total", "GET", "/v1/generations/{generation}", "404"),
        ("rollover_http_requests_total", "GET", "unmatched", "404"),
        ("rollover_http_requests_total", "other", "unmatched", "404"),
        ("rollover_http_seconds_count", "GET", "/v1/generations/{generation}"),
    ]
    before = scraped(client)
    client.get(f"/v1/generations/{UNKNOWN_ID}")
    client.get("/nowhere")
    client.request("BREW", "/nowhere")
    after = scraped(client)
    assert [after[name] - before.get(name, 0) for name in names] == [1, 1, 1, 1]
    assert UNKNOWN_ID not in str(after)


def test_a_defect_is_counted_and_tells_of_limits(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    name = ("rollover_http_requests_total", "GET", "/v1/generations/{generation}", "500")
    before = scraped(client).get(name, 0)
    key, secret = new_key("x", Limits(requests_per_minute=100))
    job = submit().id
    redis.hset(f"rollover:job:{job}", mapping={"progress": "broken", "owner": key.id})
    Keyring(redis).add(key)
    client.headers["Authorization"] = f"Bearer {secret}"
    answer = client.get(f"/v1/generations/{job}")
    refused(answer, 500, "internal_error")
    assert answer.headers["ratelimit"]
    assert scraped(client)[name] == before + 1


def test_the_queue_its_workers_and_their_pace(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    samples = scraped(client)
    assert samples["rollover_queue_length", "shapes"] == samples["rollover_nfe_per_second", "shapes"] == 0
    done(redis, submit(), nfe=200, seconds=10.0)
    submit()
    submit()
    beat(redis, WorkerState.BUSY)
    samples = scraped(client)
    assert samples["rollover_queue_length", "shapes"] == 2
    assert samples["rollover_workers", "shapes", "busy"] == 1
    assert samples["rollover_workers", "shapes", "ready"] == 0
    assert samples["rollover_nfe_per_second", "shapes"] == 20
    assert samples["rollover_job_seconds", "shapes"] == 10


def test_metrics_need_a_key_where_the_rest_does(client: httpx.Client, redis: Redis) -> None:
    Keyring(redis).add(new_key("x", Limits())[0])
    refused(client.get("/metrics"), 401, "unauthorized")


def test_the_page_names_every_metric_with_its_labels(client: httpx.Client) -> None:
    client.get("/healthz")
    rows = [line for line in PAGE.splitlines() if line.startswith("| `rollover_")]
    told = set()
    for row in rows:
        cell = row.split("|")[1]
        labels = re.search(r"\{(.*)\}", cell)
        wanted = frozenset(labels[1].split(", ")) if labels else frozenset()
        told |= {(name, wanted) for name in re.findall(r"`(rollover_[a-z_]+)`", cell)}
    families = text_string_to_metric_families(client.get("/metrics").text)
    given = set()
    for family in families:
        if family.name.endswith("_created"):
            continue
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        given.add((name, frozenset(labels)))
    assert told == given


def spent(nfe: int, redone: int, **seconds: float) -> dict[str, object]:
    return {
        "nfe_spent": nfe,
        "nfe_redone": redone,
        "model_forwards": 0,
        "reward_calls": 0,
        "decodes": 0,
        "seconds": Seconds(**seconds),
    }


def test_what_jobs_come_to_is_counted_once_each(
    client: httpx.Client, redis: Redis, submit: Callable[..., Hand]
) -> None:
    baseline = Spent.model_validate(spent(40, 1, model=1.0))
    usage = Usage.model_validate(
        {**spent(60, 4, queued=7.5, model=2.0, decode=0.5, reward=0.25), "baseline": baseline}
    )
    whole, failed, canceled = submit(), submit(), submit()
    whole.start()
    assert whole.write(status=Status.SUCCEEDED, usage=usage)
    assert not whole.write(status=Status.FAILED, usage=usage)
    failed.start()
    assert failed.write(status=Status.FAILED, usage=usage.model_copy(update={"baseline": None}))
    assert client.post(f"/v1/generations/{canceled.id}/cancel").status_code < 300
    redis.hincrby(totals_key("shapes"), "engine_restarts", 2)
    samples = scraped(client)
    by_status = [samples["rollover_jobs_total", "shapes", status] for status in Status if status.final]
    assert by_status == [1, 1, 1]
    assert samples["rollover_nfe_total", "shapes"] == 160
    assert samples["rollover_nfe_redone_total", "shapes"] == 9
    parts = {part: samples["rollover_search_seconds_total", "shapes", part] for part in ("model", "decode")}
    assert parts == {"model": 5, "decode": 1}
    waits = [samples["rollover_queue_wait_seconds_bucket", le, "shapes"] for le in ("5.0", "15.0", "+Inf")]
    assert waits == [0, 2, 2]
    assert samples["rollover_queue_wait_seconds_sum", "shapes"] == 15
    assert samples["rollover_engine_restarts_total", "shapes"] == 2
    assert samples["rollover_memory_halvings_total", "shapes"] == 0
