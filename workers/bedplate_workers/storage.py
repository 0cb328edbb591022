"""The object store that the settings name."""

from __future__ import annotations

from bedplate_store.objects import ObjectStore, ObservedObjects, Patience, open_object_store
from bedplate_workers.metrics import NullWorkMetrics, WorkMetrics
from bedplate_workers.settings import WorkerSettings


def open_objects(settings: WorkerSettings) -> ObjectStore:
    """For a process that has other things to do than wait for the object store."""
    return _open(settings, settings.patience, NullWorkMetrics())


def open_objects_patiently(settings: WorkerSettings, metrics: WorkMetrics) -> ObjectStore:
    """For a worker, which can do nothing without: it waits out an outage."""
    return _open(settings, settings.outage_patience, metrics)


def _open(settings: WorkerSettings, patience: Patience, metrics: WorkMetrics) -> ObjectStore:
    secret = settings.s3_secret_key
    objects = open_object_store(
        settings.objects_url,
        access_key=settings.s3_access_key,
        secret_key=secret.get_secret_value() if secret else None,
        region=settings.s3_region,
        patience=patience,
        on_fault=metrics.object_fault,
    )
    return ObservedObjects(objects, metrics)
