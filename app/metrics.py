"""What Prometheus reads: this process's requests, and the queue as Redis holds it."""

import time
from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.services import Services
from app.webhooks.outbox import OUTCOMES, OutboxState, state_of
from contracts.beats import WorkerState

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


async def exposition(services: Services, requests: RequestMetrics) -> bytes:
    """Write everything in Prometheus' text format."""
    registry = CollectorRegistry()
    waiting = Gauge("rollover_queue_length", "Generations that wait", ["model"], registry=registry)
    workers = Gauge("rollover_workers", "Live workers", ["model", "state"], registry=registry)
    rate = Gauge("rollover_nfe_per_second", "Of one worker, over recent jobs", ["model"], registry=registry)
    taken = Gauge("rollover_job_seconds", "Time of a job, over recent ones", ["model"], registry=registry)
    live = Tally((worker.model, worker.state) for worker in await services.store.workers())
    for model in services.settings.models:
        waiting.labels(model).set(await services.store.queue_length(model))
        for state in WorkerState:
            workers.labels(model, state.value).set(live[model, state])
        pace = await services.store.pace(model)
        rate.labels(model).set(pace.nfe_per_second or 0.0)
        taken.labels(model).set(pace.seconds_per_job or 0.0)
    note_webhooks(registry, await state_of(services.store.redis))
    return generate_latest(requests.registry) + generate_latest(registry)


def note_webhooks(registry: CollectorRegistry, state: OutboxState) -> None:
    """Say how the outbox of webhooks stands."""
    waiting = Gauge("rollover_webhooks_waiting", "Webhooks to deliver", registry=registry)
    late = Gauge("rollover_webhooks_late_seconds", "How long the first is overdue", registry=registry)
    tries = Counter("rollover_webhooks", "Tries to deliver one", ["outcome"], registry=registry)
    waiting.set(state.waiting)
    late.set(state.late_seconds)
    for outcome in OUTCOMES.values():
        tries.labels(outcome).inc(state.outcomes.get(outcome, 0))
