"""One trace from the client's request to the levels of the search, over all processes, by real OTLP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rollover import Client
from rollover.serve import Stack, StackSettings
from tests.chaos.processes import engine_of
from tests.conftest import ENDLESS
from tests.contracts.collector import Collector, collecting, facts
from tests.workers.conftest import wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
BODY = {"prompt": "a red circle", "reward": "brightness", "held_out": [], "seed": 1}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def stack(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("ROLLOVER_MODEL_PATHS", f"shapes={tiny_model}")
        patch.setenv("ROLLOVER_DEVICE", "cpu")
        patch.setenv("ROLLOVER_MAX_NFE", str(ENDLESS))
        stack = Stack(StackSettings(port=0, data_dir=tmp_path_factory.mktemp("var")), print)
        stack.__enter__()
    yield stack
    stack.stop()


def submitted(stack: Stack, trace: str, **body: object) -> str:
    headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
    answer = httpx.post(f"{stack.url}/v1/generations", json={**BODY, **body}, headers=headers, timeout=30)
    assert answer.status_code == 202
    return answer.json()["id"]


def test_one_trace_goes_from_the_callers_request_to_the_levels(stack: Stack, collector: Collector) -> None:
    job = submitted(stack, TRACE, budget={"nfe": 60})
    with Client(stack.url) as client:
        levels = [event.data for event in client.events(job) if event.type == "level"]
    # Each program sends its spans in its own time.
    sent = {"request", "queue", "execution", "search", "load", "level", "store"}
    wait_for(lambda: sent <= {span.name for _, span in collector.of(TRACE)})
    found = collector.of(TRACE)
    by_name = {span.name: span for _, span in found}
    parents = {name: by_name[name].parent_span_id for name in by_name}
    request, search = by_name["request"].span_id, by_name["search"].span_id
    assert parents.pop("request").hex() == CALLER
    assert parents == {
        "queue": request,
        "execution": request,
        "search": by_name["execution"].span_id,
        **dict.fromkeys(("load", "level", "store"), search),
    }
    assert {name: service for service, span in found for name in [span.name]} == {
        "request": "rollover-api",
        **dict.fromkeys(("queue", "execution"), "rollover-worker"),
        **dict.fromkeys(("search", "load", "level", "store"), "rollover-engine"),
    }
    assert facts(by_name["request"]) == {
        "http.request.method": "POST",
        "http.route": "/v1/generations",
        "http.response.status_code": 202,
    }
    assert facts(by_name["execution"])["ending"] == "done"
    told = [facts(span) for _, span in found if span.name == "level"]
    assert [(each["level"], each["chain"], each["reward"]) for each in told] == [
        (each["level"], each["chain"], each["reward"]) for each in levels
    ]
    assert told[-1]["nfe"] <= 60
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for _, span in found)


def test_the_execution_of_a_killed_engine_is_traced_all_the_same(stack: Stack, collector: Collector) -> None:
    trace = TRACE[::-1]
    job = submitted(stack, trace, budget={"nfe": ENDLESS})
    with Client(stack.url) as client:
        wait_for(lambda: client.get(job).progress.nfe_spent > 30)
        engine = engine_of(stack.pids["worker-shapes"])
        assert engine
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: client.get(job).raw["attempts"] == 2)
        client.cancel(job)

    def endings() -> list[str]:
        return [facts(span)["ending"] for _, span in collector.of(trace) if span.name == "execution"]

    wait_for(lambda: len(endings()) == 2)
    assert endings() == ["lost", "done"]


def test_without_an_endpoint_nothing_is_imported() -> None:
    program = """if True:
        import sys, contracts.tracing
        import app.main, workers.engine_process
        contracts.tracing.configure("x")
        with contracts.tracing.span("y") as span:
            print(span.traceparent, contracts.tracing.current())
        # redis-py imports parts of OpenTelemetry by itself where they are installed.
        ours = {"contracts.otlp", "opentelemetry.sdk.trace", "opentelemetry.exporter"}
        print(sorted(ours & {*sys.modules}))
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["None None", "[]"]
