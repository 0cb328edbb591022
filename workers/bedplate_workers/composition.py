"""The composition root of the workers: settings in, databases, objects, checkpoints and clock out."""

from __future__ import annotations

from functools import partial

import torch

from bedplate_modeling.runtime import FoundationRuntime
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.indexes import centroid_search
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints
from bedplate_workers.clocks import system_clock
from bedplate_workers.handlers import Workplace
from bedplate_workers.metrics import WorkMetrics
from bedplate_workers.settings import WorkerSettings
from bedplate_workers.storage import open_objects_patiently


def open_workplace(settings: WorkerSettings, metrics: WorkMetrics) -> Workplace:
    """Open everything the settings name. Nothing is migrated: the services do that."""
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    limits, on_retry = settings.database_limits, metrics.database_retry
    registry = RegistryDatabase(settings.registry_database_url, limits, on_retry)
    objects = open_objects_patiently(settings, metrics)
    files = CheckpointFiles(registry, objects, settings.cache_dir, metrics.cache)
    return Workplace(
        registry=registry,
        store=StoreDatabase(settings.store_database_url, limits, on_retry),
        objects=objects,
        checkpoints=Checkpoints(files, partial(FoundationRuntime.load, device=settings.device)),
        cache_dir=settings.cache_dir / "segments",
        spool_dir=settings.spool_dir,
        collect_grace_seconds=settings.collect_grace_seconds,
        now=system_clock,
        centroids=centroid_search(settings.device),
    )
