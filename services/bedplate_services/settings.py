"""The settings of one service process, read from the environment (prefix ``BEDPLATE_``)."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from bedplate.databases.settings import DatabaseSettings
from bedplate_store.objects import Patience


class Settings(DatabaseSettings):
    """Built once, in a composition root; what only differs between one machine and a cluster stands here.

    Attributes:
        objects_url: ``file:///dir``, ``s3://bucket/prefix?endpoint=http://host:port`` or ``memory://``.
        s3_connect_seconds: to connect to the object store, and to send it one part of 5 MiB.
        s3_read_seconds: until the next bytes of an answer.
        s3_attempts: calls in all for one operation, the first included; 1: no retries.
        s3_deadline_seconds: no attempt begins later than this after the first one failed.
        broker_url: ``filesystem:///dir``, ``redis://`` or ``amqp://``; None: only the reconciler sends
        messages.
        public_url: how clients reach the API, for signed object URLs; None: http://host:port.
        api_processes: how many API processes share the port, each with its own readers over the same mapped
            files.
        inference_url: how clients reach the inference service; None: http://inference_host:inference_port.
        signing_key: signs URLs of local objects, the same in all processes; None: one is made
            per process, and URLs die with it.
        local_paths: tell callers where objects lie in this machine's file system, for those that share it.
        device: where the inference service runs foundations: "cpu", "cuda", or "cuda:1" for the second GPU.
        tracing: send OpenTelemetry traces to where the OTEL_* variables say.
        token_cache_seconds: how long a revoked token may still work.
        outage_seconds: how long known tokens and aliases hold while the registry's database is away.
        history_cache_mib: memory for the encoded histories of recent users.
        reader_refresh_seconds: how long a reader may serve before looking for newer writes and snapshots; a
            write is seen by everybody about then, and its writer waits for a reader here that lags longer.
        reader_keep_seconds: how long a version stays open that nobody asks for any more.
        store_node: this process's name as a store node, which serves the shards assigned to it.
        store_node_url: how the API reaches it; None: http://store_node_host:store_node_port.
        shard_secret: what store nodes and those who ask them know; without it the API asks none.
        shard_deadline_seconds: how long a request waits for the shards it needs.
        drain_seconds: how long a process told to stop goes on as before, with /readyz saying no, so that
            nobody is still being sent to it when it ends.
        pending_mib_max: vectors of one space that may wait for compaction; further writes are put off.
    """

    objects_url: str
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None
    s3_region: str | None = None
    s3_connect_seconds: float = Field(default=5, gt=0)
    s3_read_seconds: float = Field(default=20, gt=0)
    s3_attempts: int = Field(default=5, ge=1)
    s3_deadline_seconds: float = Field(default=60, ge=0)
    broker_url: str | None = None
    cache_dir: Path
    spool_dir: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    api_processes: int = Field(default=1, ge=1, le=256)
    inference_host: str = "127.0.0.1"
    inference_port: int = Field(default=8701, ge=0, le=65535)
    inference_url: str | None = None
    public_url: str | None = None
    store_node: str | None = None
    store_node_host: str = "127.0.0.1"
    store_node_port: int = Field(default=8702, ge=0, le=65535)
    store_node_url: str | None = None
    shard_secret: SecretStr | None = None
    shard_deadline_seconds: float = Field(default=1.0, gt=0)
    signing_key: SecretStr | None = None
    local_paths: bool = False
    device: str = "cpu"
    torch_threads: int | None = Field(default=None, ge=1)
    log_level: str = "INFO"
    tracing: bool = False
    token_cache_seconds: float = Field(default=2.0, ge=0)
    outage_seconds: float = Field(default=300.0, ge=0)
    reader_refresh_seconds: float = Field(default=0.25, gt=0)
    reader_keep_seconds: float = Field(default=600.0, gt=0)
    drain_seconds: float = Field(default=5.0, ge=0)
    pending_mib_max: int = Field(default=4096, ge=1)
    model_poll_seconds: float = Field(default=1.0, gt=0)
    history_cache_mib: int = Field(default=512, ge=0)

    @model_validator(mode="after")
    def _signs_alike(self) -> Self:
        if self.api_processes > 1 and self.signing_key is None and not self.objects_url.startswith("s3:"):
            raise ValueError(
                f"{self.api_processes} API processes would refuse each other's signed URLs: set "
                "BEDPLATE_SIGNING_KEY to one secret for all of them, e.g. of `openssl rand -hex 32`"
            )
        return self

    @property
    def patience(self) -> Patience:
        """With a remote object store."""
        return Patience(
            connect_seconds=self.s3_connect_seconds,
            read_seconds=self.s3_read_seconds,
            attempts=self.s3_attempts,
            deadline_seconds=self.s3_deadline_seconds,
        )

    @property
    def api_base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def store_node_base_url(self) -> str:
        return (self.store_node_url or f"http://{self.store_node_host}:{self.store_node_port}").rstrip("/")

    @property
    def inference_base_url(self) -> str:
        return (self.inference_url or f"http://{self.inference_host}:{self.inference_port}").rstrip("/")
