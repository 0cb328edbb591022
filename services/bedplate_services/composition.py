"""The composition root of the services: settings in, databases, objects, readers and clocks out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from bedplate_modeling import checkpoint_layout as layout
from bedplate_registry import tokens
from bedplate_registry.checkpoint_files import CheckpointPolicy
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_registry.principals import Principal
from bedplate_services.auth import Authenticator
from bedplate_services.directory import SpaceDirectory
from bedplate_services.dispatch import CeleryDispatcher, Dispatcher, NullDispatcher, celery_sender
from bedplate_services.draining import Draining
from bedplate_services.metrics import Metrics, PrometheusMetrics
from bedplate_services.settings import Settings
from bedplate_services.signing import UrlSigner
from bedplate_store.announcing import ReaderAnnouncer
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.objects import ObjectStore, ObservedObjects, OnFault, open_object_store
from bedplate_store.readers import SpaceReaders
from bedplate_store.shard_routing import ShardRouting
from bedplate_store.tracing import UNTRACED, Tracing, start_tracing
from bedplate_store.writes import Writes

Clock = Callable[[], datetime]

FOUNDATION_CHECKPOINTS = CheckpointPolicy(
    (layout.FOUNDATION,), layout.WEIGHTS, layout.CONFIG, layout.SIGNATURE
)
EXPERT_CHECKPOINTS = CheckpointPolicy((layout.EXPERT,), layout.WEIGHTS, layout.CONFIG, layout.SIGNATURE)


def system_clock() -> datetime:
    """Now, as an aware UTC time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Platform:
    """What every route needs; built once per process and passed in, never global."""

    settings: Settings
    registry: RegistryDatabase
    store: StoreDatabase
    objects: ObjectStore
    readers: SpaceReaders
    announcer: ReaderAnnouncer
    directory: SpaceDirectory
    routing: ShardRouting | None
    writes: Writes
    authenticator: Authenticator
    dispatcher: Dispatcher
    signer: UrlSigner
    metrics: Metrics
    now: Clock
    draining: Draining = field(default_factory=Draining)
    tracing: Tracing = UNTRACED
    foundation_checkpoints: CheckpointPolicy = FOUNDATION_CHECKPOINTS
    expert_checkpoints: CheckpointPolicy = EXPERT_CHECKPOINTS

    def origin(self) -> dict[str, str]:
        """What a job created now is traced back to: the request at hand, and its span."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        named = {} if request_id is None else {"request_id": request_id}
        return {**named, **self.tracing.headers()}

    def start(self) -> None:
        """Keep the readers fresh, and tell the other processes what they have open, until closed."""
        self.readers.start()
        self.announcer.start()

    def close(self) -> None:
        self.announcer.close()
        self.readers.close()
        self.registry.close()
        self.store.close()


def build_platform(
    settings: Settings,
    *,
    service: str,
    metrics: Metrics | None = None,
    dispatcher: Dispatcher | None = None,
    now: Clock = system_clock,
) -> Platform:
    """Open everything the settings name. Nothing is migrated: see :func:`migrate`."""
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    tracing = start_tracing(settings.tracing, service)
    metrics = metrics or PrometheusMetrics(service)
    limits, on_retry = settings.database_limits, metrics.database_retry
    registry = RegistryDatabase(settings.registry_database_url, limits, on_retry)
    store = StoreDatabase(settings.store_database_url, limits, on_retry)
    tracing.trace_queries([registry.engine, store.engine])
    objects = open_objects(settings, metrics)
    readers = SpaceReaders(
        store,
        objects,
        settings.cache_dir / "segments",
        refresh_seconds=settings.reader_refresh_seconds,
        keep_seconds=settings.reader_keep_seconds,
        follows=service == "api",  # experts are pinned to versions by number
        now=now,
    )
    routing = None if settings.shard_secret is None else ShardRouting(store, now)
    url = settings.inference_base_url if service == "inference" else settings.api_base_url
    return Platform(
        settings=settings,
        registry=registry,
        store=store,
        objects=objects,
        readers=readers,
        announcer=ReaderAnnouncer(store, readers, service=service, url=url, now=now),
        directory=SpaceDirectory(
            registry,
            readers,
            routing=routing,
            # How soon an alias moved elsewhere is followed; writes are seen as soon as the reader is.
            fresh_seconds=settings.reader_refresh_seconds,
            stale_seconds=2 * settings.reader_refresh_seconds,
            outage_seconds=settings.outage_seconds,
        ),
        routing=routing,
        writes=Writes(store, objects, settings.pending_mib_max << 20, readers),
        authenticator=build_authenticator(registry, settings, metrics),
        dispatcher=dispatcher or build_dispatcher(store, settings.broker_url, tracing),
        signer=UrlSigner(settings.api_base_url, _secret(settings)),
        metrics=metrics,
        now=now,
        tracing=tracing,
    )


def open_objects(settings: Settings, metrics: Metrics) -> ObjectStore:
    """The object store, whose faults and cached files are counted."""
    return ObservedObjects(open_uncached(settings, metrics.object_fault), metrics)


def open_uncached(settings: Settings, on_fault: OnFault) -> ObjectStore:
    """The adapter itself, for who opens no files."""
    secret = settings.s3_secret_key
    return open_object_store(
        settings.objects_url,
        access_key=settings.s3_access_key,
        secret_key=secret.get_secret_value() if secret else None,
        region=settings.s3_region,
        patience=settings.patience,
        on_fault=on_fault,
    )


def build_authenticator(registry: RegistryDatabase, settings: Settings, metrics: Metrics) -> Authenticator:
    def ask(secret: str) -> Principal:
        with registry.read() as session:
            return tokens.authenticate(session, secret)

    return Authenticator(
        ask,
        ttl_seconds=settings.token_cache_seconds,
        outage_seconds=settings.outage_seconds,
        on_use=metrics.cache,
    )


def build_dispatcher(store: StoreDatabase, broker_url: str | None, tracing: Tracing = UNTRACED) -> Dispatcher:
    # On one machine the reconciler drains five times a second and owns the folder that is the broker.
    if broker_url is None or broker_url.startswith("filesystem:"):
        return NullDispatcher()
    return CeleryDispatcher(store, celery_sender(broker_url, tracing), tracing)


def migrate(settings: Settings) -> None:
    """Bring both databases to the newest revision; safe when several processes start at once."""
    for database in (
        RegistryDatabase(settings.registry_database_url),
        StoreDatabase(settings.store_database_url),
    ):
        database.migrate()
        database.close()


def _secret(settings: Settings) -> str | None:
    return settings.signing_key.get_secret_value() if settings.signing_key else None
