"""Objects in this process's memory: for tests and for trying things out."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bedplate.full_disks import named_full_disk
from bedplate_store.objects.port import check_key, damaged, missing


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryObjectStore:
    """An :class:`~bedplate_store.objects.ObjectStore` that lasts as long as its process."""

    def __init__(self, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    def put(self, key: str, data: bytes | memoryview) -> None:
        with self._lock:
            self._objects[check_key(key)] = (bytes(data), self._now())

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        found = self._objects.get(check_key(key))
        if found is None:
            raise missing(key)
        if sha256 is not None and (digest := hashlib.sha256(found[0]).hexdigest()) != sha256:
            raise damaged(key, sha256, digest)
        return found[0]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        data = self.get(key, sha256=sha256)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with named_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(data)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def size(self, key: str) -> int | None:
        found = self._objects.get(check_key(key))
        return None if found is None else len(found[0])

    def modified_at(self, key: str) -> datetime | None:
        found = self._objects.get(check_key(key))
        return None if found is None else found[1]

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            keys = [key for key in self._objects if key.startswith(prefix)]
        return iter(keys)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        check_key(key)
        return None
