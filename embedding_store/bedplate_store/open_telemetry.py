"""Tracing by OpenTelemetry, set up from its standard OTEL_* variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from sqlalchemy import Engine

from bedplate.errors import InvalidRequest

_EXPORTER = "OTEL_TRACES_EXPORTER"
_EXPORTERS: Mapping[str, Callable[[], SpanExporter] | None] = {
    "otlp": OTLPSpanExporter,
    "console": ConsoleSpanExporter,
    "none": None,
}


class _WithoutIdleQueries(BatchSpanProcessor):
    """Drops calls that belong to no request and no message: threads that look for news many times a second
    would drown both.
    """

    def on_end(self, span: ReadableSpan) -> None:
        if span.parent is not None or span.kind != SpanKind.CLIENT:
            super().on_end(span)


class OpenTelemetry:
    """Tracing that is on; see :class:`bedplate_store.tracing.Tracing`.

    The provider is handed to each instrumentation and not made the global one, which FastAPI would find and
    trace every request a second time.
    """

    on = True

    def __init__(self, service: str) -> None:
        resource = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource)
        for exporter in _exporters():
            self.provider.add_span_processor(_WithoutIdleQueries(exporter))
        URLLib3Instrumentor().instrument(tracer_provider=self.provider, raise_exception_on_conflict=True)

    @property
    def log_processors(self) -> Sequence[Any]:
        return (_with_ids,)

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    @contextmanager
    def within(self, headers: Mapping[str, str]) -> Iterator[None]:
        token = context.attach(propagate.extract(headers))
        try:
            yield
        finally:
            context.detach(token)

    def here(self) -> context.Context:
        return context.get_current()

    @contextmanager
    def together(self, name: str, spans: Sequence[context.Context]) -> Iterator[None]:
        first, *others = spans
        links = [trace.Link(trace.get_current_span(one).get_span_context()) for one in others]
        with self.provider.get_tracer(__name__).start_as_current_span(name, context=first, links=links):
            self.note({"requests": len(spans)})
            yield

    def note(self, names: Mapping[str, Any], *, failed: bool = False) -> None:
        span = trace.get_current_span()
        span.set_attributes({f"bedplate.{name}": value for name, value in names.items()})
        if failed:
            span.set_status(Status(StatusCode.ERROR))

    def name(self, name: str, attributes: Mapping[str, str]) -> None:
        span = trace.get_current_span()
        span.update_name(name)
        span.set_attributes(attributes)

    def trace_queries(self, engines: Sequence[Engine]) -> None:
        # It names SQLAlchemy 2.0 as the newest it knows; the events of the engine that it listens to are in
        # 2.1 what they were, and the test of traces sees its spans.
        SQLAlchemyInstrumentor().instrument(
            engines=list(engines), tracer_provider=self.provider, skip_dep_check=True
        )

    def trace_messages(self, app: Any, task: str) -> None:
        # Imports Celery, which is not for everybody who traces.
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]  # typed in part
        instrumentor.instrument(tracer_provider=self.provider, raise_exception_on_conflict=True)
        # The instrumentation ends the span of what was sent if it finds the task in the default application,
        # and never if it does not; who only sends has no task.
        app.set_default()
        if task not in app.tasks:
            app.task(name=task)(_done_elsewhere)

    def close(self) -> None:
        self.provider.shutdown()


def _exporters() -> list[SpanExporter]:
    found = []
    for name in os.environ.get(_EXPORTER, "otlp").split(","):
        if name.strip() not in _EXPORTERS:
            raise InvalidRequest(f"{_EXPORTER}={name} is not known here; use {', '.join(_EXPORTERS)}.")
        make = _EXPORTERS[name.strip()]
        if make is not None:
            found.append(make())
    return found


def _done_elsewhere(*_arguments: Any) -> None:
    raise NotImplementedError("this process sends the task and does not do it")


def _with_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event
