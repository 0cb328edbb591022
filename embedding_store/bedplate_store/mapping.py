"""Files of immutable objects, mapped into memory where they lie or from this machine's cache."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import uuid
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InternalError
from bedplate_store.objects import ObjectStore

_HASH_CHUNK_BYTES = 1 << 20
_CACHED = ("segments/*/*", "indexes/*/*", "building/*")
_ADVICE = {"random": "MADV_RANDOM", "sequential": "MADV_SEQUENTIAL"}


def sha256_file(path: Path) -> str:
    """Lower-case hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def local_file(objects: ObjectStore, key: str, cache_dir: Path, *, bytes_: int, sha256: str) -> Path:
    """The object's file on this machine: in place, or fetched once into ``cache_dir`` and verified.

    Raises:
        NotFound: the object is gone.
        InternalError: what came back is not what was stored.
    """
    in_place = objects.local_path(key)
    if in_place is not None:
        return _checked_size(in_place, key, bytes_)
    cached = cache_dir / key
    if not _touched(cached):
        # Fetched beside its name and verified before it gets it: the cache never holds a wrong file.
        incoming = cached.with_name(f"{cached.name}.{uuid.uuid4().hex}")
        objects.get_file(key, incoming)
        if sha256_file(incoming) != sha256:
            incoming.unlink(missing_ok=True)
            raise InternalError(f"object {key!r} does not have its digest {sha256}: restore it from a copy.")
        incoming.replace(cached)
    return _checked_size(cached, key, bytes_)


def map_file(path: Path, access: Literal["random", "sequential"]) -> NDArray[np.uint8]:
    """The file's bytes [n] uint8, read-only, paged in when touched; the mapping outlives the file's name."""
    with open(path, "rb") as file:
        if file.seek(0, 2) == 0:
            return np.empty(0, np.uint8)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Random: a cold lookup must not drag in the neighbourhood of each row.
    if hasattr(mmap, _ADVICE[access]):
        mapped.madvise(getattr(mmap, _ADVICE[access]))
    return np.frombuffer(mapped, np.uint8)


def prune_cache(cache_dir: Path, keep: Collection[str], before: datetime) -> int:
    """Remove cached objects last opened before ``before`` whose digest is not in ``keep``; returns how many.

    Files left by killed builders go by the same age. Who has a removed file mapped keeps it; who needs it
    again fetches it again.
    """
    removed = 0
    for path in [path for pattern in _CACHED for path in cache_dir.glob(pattern)]:
        if path.parent.name in keep:
            continue
        # Processes share the cache: another one may prune at the same time.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before.timestamp():
                path.unlink()
                removed += 1
    for folder in [*cache_dir.glob("segments/*"), *cache_dir.glob("indexes/*")]:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only goes where it is empty
    return removed


def _touched(path: Path) -> bool:
    """Mark a cached file as used now, for whoever prunes the cache; False: it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _checked_size(path: Path, key: str, bytes_: int) -> Path:
    size = path.stat().st_size
    if size != bytes_:
        raise InternalError(f"object {key!r} has {size} bytes instead of {bytes_}: restore it from a copy.")
    return path
