"""An object store that tells how the copies of its files on this machine are used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from bedplate_store.objects.port import ObjectStore

CacheResult = Literal["hit", "miss"]


class CacheUses(Protocol):
    """Who counts. ``cache`` is what the files are: the first component of their keys, e.g. ``segments``."""

    def cache(self, cache: str, result: CacheResult) -> None:
        """A file was opened: it was on this machine, or had to be fetched."""

    def fetched(self, cache: str, bytes_: int) -> None:
        """A file came from the object store."""


class ObservedObjects:
    """Everything goes to ``objects`` as it is; ``uses`` is told what is fetched, and by
    :func:`bedplate_store.mapping.local_file` what need not be.
    """

    def __init__(self, objects: ObjectStore, uses: CacheUses) -> None:
        self._objects = objects
        self._uses = uses

    def opened(self, key: str, result: CacheResult) -> None:
        """A file that does not lie in place was opened."""
        self._uses.cache(_cache(key), result)

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._objects.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._objects.put_file(key, path)

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        return self._objects.get(key, sha256=sha256)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._objects.get_range(key, start, length)

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        self._objects.get_file(key, path, sha256=sha256)
        self._uses.fetched(_cache(key), path.stat().st_size)

    def local_path(self, key: str) -> Path | None:
        return self._objects.local_path(key)

    def size(self, key: str) -> int | None:
        return self._objects.size(key)

    def modified_at(self, key: str) -> datetime | None:
        return self._objects.modified_at(key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._objects.list(prefix)

    def delete(self, key: str) -> None:
        self._objects.delete(key)

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        return self._objects.signed_url(key, expires_seconds)


def _cache(key: str) -> str:
    return key.partition("/")[0]
