"""A receiver of traces: OTLP over HTTP, on loopback."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What came: each span with the service that sent it."""

    url: str
    spans: list[tuple[str, Span]] = field(default_factory=list[tuple[str, Span]])

    def of(self, trace: str) -> list[tuple[str, Span]]:
        """The spans of a trace."""
        return [each for each in self.spans if each[1].trace_id.hex() == trace]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Receive traces meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = facts(each.resource)["service.name"]
                collector.spans += [(service, span) for scope in each.scope_spans for span in scope.spans]
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class has it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def facts(of: Any) -> dict[str, Any]:  # noqa: ANN401 -- protobuf's messages that have attributes share no type
    """The attributes of a span or of a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
