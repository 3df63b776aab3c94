"""What Prometheus reads: this process's requests, and the queue as Redis holds it."""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily as Count
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.services import Services
from app.store import Store, keys_of
from app.webhooks.outbox import OUTCOMES, OutboxState, state_of
from contracts.beats import WorkerBeat, WorkerState
from contracts.keys import pace_key, totals_key
from contracts.quotes import Pace
from contracts.totals import WAIT_BOUNDS, Totals

METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}
LABELS = ("method", "route")


class RequestMetrics:
    """Counts and times of requests, by route and not by path, whose ids would make a series each."""

    def __init__(self) -> None:
        """Make them in a registry of their own: one application, one set."""
        self.registry = CollectorRegistry()
        self.count = Counter(
            "rollover_http_requests", "Requests answered", (*LABELS, "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "rollover_http_seconds", "Time to the first byte of the answer", LABELS, registry=self.registry
        )

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Note one request that was answered."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.count.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)


class MeasureRequests:
    """ASGI middleware that notes every request."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        """Wrap an application."""
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.note(scope, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, noted if scope["type"] == "http" else send)


@dataclass(frozen=True)
class Standing:
    """How a model stands."""

    model: str
    waiting: int
    pace: Pace
    totals: Totals


async def standings(store: Store, models: Sequence[str]) -> list[Standing]:
    """Read how every model stands, in one round trip."""
    pipeline = store.redis.pipeline(transaction=True)
    for model in models:
        waiting, line, _ = keys_of(model)
        pipeline.llen(waiting)
        pipeline.zcard(line)
        pipeline.hgetall(pace_key(model))
        pipeline.hgetall(totals_key(model))
    found = iter(await pipeline.execute())
    return [
        Standing(model, shown + behind, Pace.from_hash(pace), Totals.from_hash(totals))
        for model, shown, behind, pace, totals in zip(models, found, found, found, found, strict=True)
    ]


class Collected(Collector):
    """What was read from Redis, as prometheus-client wants it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        """Hold the families."""
        self.families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.families


async def exposition(services: Services, requests: RequestMetrics) -> bytes:
    """Write everything in Prometheus' text format."""
    registry = CollectorRegistry()
    stand = await standings(services.store, services.settings.models)
    registry.register(Collected(queue_families(stand, await services.store.workers())))
    registry.register(Collected(work_families(stand)))
    registry.register(Collected(webhook_families(await state_of(services.store.redis))))
    return generate_latest(requests.registry) + generate_latest(registry)


def queue_families(stand: Sequence[Standing], workers: Iterable[WorkerBeat]) -> list[Metric]:
    """Say what waits, who works, and how fast."""
    waiting = Gauge("rollover_queue_length", "Generations that wait", labels=["model"])
    alive = Gauge("rollover_workers", "Live workers", labels=["model", "state"])
    rate = Gauge("rollover_nfe_per_second", "Of one worker, over recent jobs", labels=["model"])
    taken = Gauge("rollover_job_seconds", "Time of a job, over recent ones", labels=["model"])
    live = Tally((worker.model, worker.state) for worker in workers)
    for each in stand:
        waiting.add_metric([each.model], each.waiting)
        rate.add_metric([each.model], each.pace.nfe_per_second or 0.0)
        taken.add_metric([each.model], each.pace.seconds_per_job or 0.0)
        for state in WorkerState:
            alive.add_metric([each.model, state.value], live[each.model, state])
    return [waiting, alive, rate, taken]


def work_families(stand: Sequence[Standing]) -> list[Metric]:
    """Say what was done, all told."""
    jobs = Count("rollover_jobs", "Generations that have ended", labels=["model", "status"])
    wait = HistogramMetricFamily("rollover_queue_wait_seconds", "Wait of ended jobs", labels=["model"])
    nfe = Count("rollover_nfe", "NFE of ended jobs", labels=["model"])
    redone = Count("rollover_nfe_redone", "NFE made again after a loss", labels=["model"])
    seconds = Count("rollover_search_seconds", "Time of ended jobs", labels=["model", "part"])
    restarts = Count("rollover_engine_restarts", "Engines that replaced one", labels=["model"])
    halvings = Count("rollover_memory_halvings", "Halvings of the rows in a call", labels=["model"])
    for each in stand:
        totals = each.totals
        for status, number in totals.jobs.items():
            jobs.add_metric([each.model, status], number)
        for part, spent in totals.seconds.items():
            seconds.add_metric([each.model, part], spent)
        bounds = [*map(str, map(float, WAIT_BOUNDS)), "+Inf"]
        wait.add_metric([each.model], list(zip(bounds, totals.waits, strict=True)), totals.wait_seconds)
        nfe.add_metric([each.model], totals.nfe)
        redone.add_metric([each.model], totals.nfe_redone)
        restarts.add_metric([each.model], totals.engine_restarts)
        halvings.add_metric([each.model], totals.halvings)
    return [jobs, wait, nfe, redone, seconds, restarts, halvings]


def webhook_families(state: OutboxState) -> list[Metric]:
    """Say how the outbox of webhooks stands."""
    tries = Count("rollover_webhooks", "Tries to deliver one", labels=["outcome"])
    for outcome in OUTCOMES.values():
        tries.add_metric([outcome], state.outcomes.get(outcome, 0))
    return [
        Gauge("rollover_webhooks_waiting", "Webhooks to deliver", value=state.waiting),
        Gauge("rollover_webhooks_late_seconds", "How long the first is overdue", value=state.late_seconds),
        tries,
    ]
