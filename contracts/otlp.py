"""Spans by OpenTelemetry, sent by OTLP over HTTP; imported by `contracts.tracing` alone."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts.tracing import Fact

HEADER = "traceparent"
SEND_EVERY_MS = 1000
"""Sooner than the SDK's 5 s: what a killed process had not sent is lost."""
W3C = TraceContextTextMapPropagator()


class Spanned:
    """One span."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        """See `contracts.tracing.Span`."""
        return written(trace.set_span_in_context(self._span))

    def note(self, **facts: Fact) -> None:
        """See `contracts.tracing.Span`."""
        self._span.set_attributes(named(facts))


class OtlpTracer:
    """See `contracts.tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("rollover")

    @contextmanager
    def span(self, name: str, parent: str | None, facts: Mapping[str, Fact]) -> Generator[Spanned]:
        """See `contracts.tracing.span`."""
        with self._tracer.start_as_current_span(name, below(parent), attributes=named(facts)) as span:
            yield Spanned(span)

    def record(
        self, name: str, parent: str | None, times: tuple[float, float], facts: Mapping[str, Fact]
    ) -> None:
        """See `contracts.tracing.record`."""
        start, end = (int(each * 1e9) for each in times)
        span = self._tracer.start_span(name, below(parent), attributes=named(facts), start_time=start)
        span.end(max(start, end))

    def current(self) -> str | None:
        """See `contracts.tracing.current`."""
        return written(None)


def below(parent: str | None) -> Context | None:
    """Return the context of a parent in another process; None: where we are."""
    return W3C.extract({HEADER: parent}) if parent else None


def written(context: Context | None) -> str | None:
    """Return the traceparent of a context's span."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier, context)
    return carrier.get(HEADER)


def named(facts: Mapping[str, Fact]) -> dict[str, str | int | float | bool]:
    """Leave out what is not known; a double underscore is the dot in OpenTelemetry's names."""
    return {name.replace("__", "."): value for name, value in facts.items() if value is not None}


def tracer(service: str) -> OtlpTracer:
    """Return a tracer that sends, with what the variables of OpenTelemetry say."""
    given = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(given))
    delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else SEND_EVERY_MS
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=delay))
    return OtlpTracer(provider)
