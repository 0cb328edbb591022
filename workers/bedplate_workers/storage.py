"""The object store that the settings name."""

from __future__ import annotations

from bedplate_store.objects import ObjectStore, open_object_store
from bedplate_workers.settings import WorkerSettings


def open_objects(settings: WorkerSettings) -> ObjectStore:
    secret = settings.s3_secret_key
    return open_object_store(
        settings.objects_url,
        access_key=settings.s3_access_key,
        secret_key=secret.get_secret_value() if secret else None,
        region=settings.s3_region,
        patience=settings.patience,
    )
