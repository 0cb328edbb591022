"""Traces as the processes see them: off unless one is told to, and then nothing of OpenTelemetry is loaded.

:mod:`bedplate_store.open_telemetry` is the one module that imports it here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from sqlalchemy import Engine

from bedplate.errors import InvalidRequest

LogProcessor = Any
"""As structlog has them: takes a logger, a method name and the event, and returns the event."""


class Tracing(Protocol):
    """What a process asks of traces; spans are begun by the standard instrumentations."""

    on: bool
    provider: Any
    """The tracer provider, for instrumentations; None where tracing is off."""

    @property
    def log_processors(self) -> Sequence[LogProcessor]:
        """Write the ids of the present trace and span into each line of the log."""
        ...

    def headers(self) -> Mapping[str, str]:
        """The context of the present span, to be carried elsewhere: ``traceparent``, ``tracestate``."""
        ...

    def within(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Spans begun inside belong to the trace that :meth:`headers` of another process told."""
        ...

    def here(self) -> Any:
        """The present span, for :meth:`together`; None where tracing is off."""
        ...

    def together(self, name: str, spans: Sequence[Any]) -> AbstractContextManager[None]:
        """A span of what is done for several requests at once, which :meth:`here` told: a child of the first
        one's span, linked to the others'.
        """
        ...

    def note(self, names: Mapping[str, Any], *, failed: bool = False) -> None:
        """Write what the present span is about into it."""
        ...

    def name(self, name: str, attributes: Mapping[str, str]) -> None:
        """Call the present span by another name."""
        ...

    def trace_queries(self, engines: Sequence[Engine]) -> None:
        """Trace the queries of these; called once."""
        ...

    def trace_messages(self, app: Any, task: str) -> None:
        """Trace what this Celery application sends and takes as ``task``."""
        ...

    def close(self) -> None:
        """Send what was not sent yet."""
        ...


class Untraced:
    """Tracing that is off."""

    on = False
    provider: Any = None
    log_processors: Sequence[LogProcessor] = ()

    def headers(self) -> Mapping[str, str]:
        return {}

    def within(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        return nullcontext()

    def here(self) -> Any:
        return None

    def together(self, name: str, spans: Sequence[Any]) -> AbstractContextManager[None]:
        return nullcontext()

    def note(self, names: Mapping[str, Any], *, failed: bool = False) -> None:
        return None

    def name(self, name: str, attributes: Mapping[str, str]) -> None:
        return None

    def trace_queries(self, engines: Sequence[Engine]) -> None:
        return None

    def trace_messages(self, app: Any, task: str) -> None:
        return None

    def close(self) -> None:
        return None


UNTRACED = Untraced()


def start_tracing(on: bool, service: str) -> Tracing:
    """Tracing of this process, whose spans are those of ``bedplate-<service>`` unless OTEL_SERVICE_NAME says
    otherwise.

    Raises:
        InvalidRequest: OpenTelemetry is not installed, or OTEL_TRACES_EXPORTER names an unknown exporter.
    """
    if not on:
        return UNTRACED
    try:
        from bedplate_store.open_telemetry import OpenTelemetry
    except ImportError as error:
        raise InvalidRequest(
            f"BEDPLATE_TRACING is on, but {error.name} is not installed: pip install 'bedplate[otel]', or "
            "switch it off."
        ) from error
    return OpenTelemetry(f"bedplate-{service}")
