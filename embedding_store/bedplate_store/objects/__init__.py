"""Object storage: where everything immutable lies. One port, three adapters."""

from bedplate_store.objects.local import LocalObjectStore
from bedplate_store.objects.memory import MemoryObjectStore
from bedplate_store.objects.observed import CacheUses, ObservedObjects
from bedplate_store.objects.port import ObjectStore, check_key
from bedplate_store.objects.retries import OnFault, Patience
from bedplate_store.objects.s3 import S3ObjectStore
from bedplate_store.objects.urls import open_object_store

__all__ = [
    "CacheUses",
    "LocalObjectStore",
    "MemoryObjectStore",
    "ObjectStore",
    "ObservedObjects",
    "OnFault",
    "Patience",
    "S3ObjectStore",
    "check_key",
    "open_object_store",
]
