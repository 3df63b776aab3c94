"""Traces across processes: spans by OpenTelemetry where its variables name an endpoint, nothing otherwise.

A job's record has the W3C traceparent of the request that submitted it; what workers do is traced below that.
Decision 0055 says why this stands here.
"""

import importlib
import logging
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
Fact = str | int | float | bool | None
log = logging.getLogger(__name__)


class Span(Protocol):
    """Something that takes time."""

    @property
    def traceparent(self) -> str | None:
        """What a span of another process names to be below this one; None where there are no traces."""
        ...

    def note(self, **facts: Fact) -> None:
        """Add facts; those that are None add nothing."""
        ...


class Tracer(Protocol):
    """What spans are given to."""

    def span(self, name: str, parent: str | None, facts: Mapping[str, Fact]) -> AbstractContextManager[Span]:
        """See `span`."""
        ...

    def record(
        self, name: str, parent: str | None, times: tuple[float, float], facts: Mapping[str, Fact]
    ) -> None:
        """See `record`."""
        ...

    def current(self) -> str | None:
        """See `current`."""
        ...


class Nothing:
    """The span and the tracer where there are no traces."""

    traceparent: str | None = None

    def note(self, **facts: Fact) -> None:
        """Do nothing."""

    def span(self, name: str, parent: str | None, facts: Mapping[str, Fact]) -> AbstractContextManager[Span]:
        """Do nothing."""
        del name, parent, facts
        return nullcontext(self)

    def record(
        self, name: str, parent: str | None, times: tuple[float, float], facts: Mapping[str, Fact]
    ) -> None:
        """Do nothing."""

    def current(self) -> str | None:
        """There is none."""
        return None


_tracer: Tracer = Nothing()


def wanted() -> bool:
    """Whether the environment names an endpoint."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def configure(service: str) -> None:
    """Begin to send traces, where an endpoint is set; not before a fork, as a thread sends them."""
    global _tracer  # noqa: PLW0603 -- one a process, as with logging
    if not wanted():
        return
    try:
        otlp = importlib.import_module("contracts.otlp")
    except ImportError as error:
        log.warning("an endpoint for traces is set, but not `pip install 'rollover[otel]'`: %s", error)
        return
    _tracer = otlp.tracer(service)


def span(name: str, parent: str | None = None, **facts: Fact) -> AbstractContextManager[Span]:
    """Trace a block.

    Args:
        name: of what is done.
        parent: traceparent of a span of another process; None: the block's surroundings.
        facts: known at the start.
    """
    return _tracer.span(name, parent, facts)


def record(name: str, start: float, parent: str | None = None, **facts: Fact) -> None:
    """Trace what began at a time (Unix seconds) and has ended now; see `span`."""
    _tracer.record(name, parent, (start, time.time()), facts)


def current() -> str | None:
    """Return the traceparent of the innermost span, None where there is none."""
    return _tracer.current()
