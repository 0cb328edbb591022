"""Structured logs: one JSON object a line, with the id of the request it was written for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import structlog


def configure(level: str, processors: Sequence[structlog.typing.Processor] = ()) -> None:
    """Send structlog and the standard library's loggers to standard error as JSON lines; ``processors`` add
    to each.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *processors,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # alembic tells of each look at a schema's revision, and every readiness probe looks.
    for quiet in ("uvicorn.access", "faiss", "faiss.loader", "httpx", "alembic.runtime.migration"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
