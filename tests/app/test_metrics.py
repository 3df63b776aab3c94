"""GET /metrics: what Prometheus reads."""

from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from contracts.beats import WorkerState
from tests.app.hand import Hand, beat
from tests.app.test_bad_input import UNKNOWN_ID, refused
from tests.app.test_quotes import done


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
