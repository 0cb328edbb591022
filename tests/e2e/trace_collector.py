"""An OTLP collector over HTTP that keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span; ids are hexadecimal, ``parent`` is empty for a root, ``links`` are those of other spans."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool
    links: tuple[str, ...]


class Collector:
    """Listens on a free port from ``__enter__`` to ``__exit__``."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._receive(self.path, body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wait_for(self, enough: Callable[[list[Span]], bool], seconds: float) -> list[Span]:
        """All spans, once there are enough of them."""
        deadline = time.monotonic() + seconds
        with self._came:
            while not enough(self._spans):
                left = deadline - time.monotonic()
                assert left > 0, sorted({(span.service, span.name) for span in self._spans})
                self._came.wait(left)
            return list(self._spans)

    def _receive(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        came = [
            Span(
                service=_plain(resource.resource.attributes)["service.name"],
                name=span.name,
                kind=span.kind,
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                attributes=_plain(span.attributes),
                failed=span.status.code == span.status.STATUS_CODE_ERROR,
                links=tuple(link.span_id.hex() for link in span.links),
            )
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._came:
            self._spans += came
            self._came.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
