"""The composition root of the workers: settings in, databases, objects, checkpoints and clock out."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import torch

from bedplate_modeling.runtime import FoundationRuntime
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.objects import ObjectStore, open_object_store
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints
from bedplate_workers.handlers import Workplace
from bedplate_workers.settings import WorkerSettings


def system_clock() -> datetime:
    """Now, as an aware UTC time."""
    return datetime.now(UTC)


def open_objects(settings: WorkerSettings) -> ObjectStore:
    secret = settings.s3_secret_key
    return open_object_store(
        settings.objects_url,
        access_key=settings.s3_access_key,
        secret_key=secret.get_secret_value() if secret else None,
        region=settings.s3_region,
    )


def open_workplace(settings: WorkerSettings) -> Workplace:
    """Open everything the settings name. Nothing is migrated: the services do that."""
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    registry = RegistryDatabase(settings.registry_database_url)
    objects = open_objects(settings)
    files = CheckpointFiles(registry, objects, settings.cache_dir)
    return Workplace(
        registry=registry,
        store=StoreDatabase(settings.store_database_url),
        objects=objects,
        checkpoints=Checkpoints(files, partial(FoundationRuntime.load, device=settings.device)),
        cache_dir=settings.cache_dir / "segments",
        spool_dir=settings.spool_dir,
        collect_grace_seconds=settings.collect_grace_seconds,
        now=system_clock,
    )
