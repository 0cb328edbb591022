"""The settings of a worker or reconciler process, read from the environment (prefix ``BEDPLATE_``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from bedplate.databases.settings import DatabaseSettings
from bedplate_store.objects import Patience


class WorkerSettings(DatabaseSettings):
    """Built once, in a composition root; what only differs between one machine and a cluster stands here.

    Attributes:
        objects_url: ``file:///dir``, ``s3://bucket/prefix?endpoint=http://host:port`` or ``memory://``.
        s3_connect_seconds: to connect to the object store, and to send it one part of 5 MiB.
        s3_read_seconds: until the next bytes of an answer.
        s3_attempts: calls in all for one operation, the first included; 1: no retries.
        s3_deadline_seconds: no attempt begins later than this after the first one failed.
        s3_outage_seconds: so long a worker waits for an object store that is away, whatever ``s3_attempts``
            says, before its attempt at the partition has failed.
        broker_url: ``filesystem:///dir``, ``redis://`` or ``amqp://``.
        queue_type: of the queues that are made on RabbitMQ.
        visibility_timeout_seconds: after which Redis gives a message that a worker took and did not end to
            another one, which the ledger then sends away unless the lease has expired as well.
        lease_seconds: how long a partition stays with a worker that gives no sign of life.
        resend_seconds: how long a due partition waits for a worker before its message is sent again; one can
            get lost with a broker or with a worker that had only just received it.
        device: where models run: "cpu", or "cuda" for a worker with a GPU of its own, which then builds
            inverted lists on it, too, if FAISS can.
        collect_grace_seconds: an object younger than this is never collected, referred to or not.
        stop_seconds: how long a worker told to stop may stay with a step that cannot be interrupted, before
            it gives its partition back and ends.
        heartbeat_file: where the process shows that it is well, for ``python -m bedplate_workers.alive``.
        tracing: send OpenTelemetry traces to where the OTEL_* variables say.
        metrics_port: the process serves its metrics here; None: nowhere.
    """

    objects_url: str
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None
    s3_region: str | None = None
    s3_connect_seconds: float = Field(default=5, gt=0)
    s3_read_seconds: float = Field(default=20, gt=0)
    s3_attempts: int = Field(default=5, ge=1)
    s3_deadline_seconds: float = Field(default=60, ge=0)
    s3_outage_seconds: float = Field(default=100, ge=0)
    broker_url: str
    queue_type: Literal["quorum", "classic"] = "quorum"
    visibility_timeout_seconds: float = Field(default=3600, gt=0)
    cache_dir: Path
    spool_dir: Path
    lease_seconds: float = Field(default=30, gt=0)
    resend_seconds: float = Field(default=30, gt=0)
    collect_grace_seconds: float = Field(default=3600, ge=0)
    stop_seconds: float = Field(default=8, ge=0)
    heartbeat_file: Path | None = None
    device: str = "cpu"
    torch_threads: int | None = Field(default=None, ge=1)
    log_level: str = "INFO"
    tracing: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)

    @property
    def outage_patience(self) -> Patience:
        """Of a worker, whose partition would have to be done again."""
        longest = max(self.s3_deadline_seconds, self.s3_outage_seconds)
        return replace(self.patience, attempts=None, deadline_seconds=longest)

    @property
    def patience(self) -> Patience:
        """With a remote object store."""
        return Patience(
            connect_seconds=self.s3_connect_seconds,
            read_seconds=self.s3_read_seconds,
            attempts=self.s3_attempts,
            deadline_seconds=self.s3_deadline_seconds,
        )
