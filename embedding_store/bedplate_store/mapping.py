"""Files of immutable objects, mapped into memory where they lie or from this machine's cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import ObjectDamaged
from bedplate_store.objects import ObjectStore, ObservedObjects

logger = logging.getLogger(__name__)

VERIFIED_AT_OPEN_BYTES = 16 << 20
"""Files up to this size are read and checked at every opening; that takes some 10 ms. Larger ones were
checked when they came over the network, and are checked where they lie by :mod:`bedplate_store.scrubbing`.
"""
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

    A file that is here already is checked by its size, a small one by its digest as well. If a cached one is
    wrong, it is fetched again.

    Raises:
        NotFound: the object is gone.
        ObjectDamaged: what is stored is not what was written.
        Unavailable, StorageFull: it cannot be fetched just now, or there is no room for it.
    """
    in_place = objects.local_path(key)
    if in_place is not None:
        wrong = _wrong(in_place, bytes_, sha256)
        if wrong is not None:
            raise ObjectDamaged(
                f"object {key!r} is damaged: it {wrong}. Restore it from a copy, or make it again.", key=key
            )
        return in_place
    cached = cache_dir / key
    usable = _touched(cached)
    if usable and (wrong := _wrong(cached, bytes_, sha256)) is not None:
        logger.warning("cached file %s %s: fetching it again", cached, wrong)
        usable = False
    if not usable:
        objects.get_file(key, cached, sha256=sha256)
    if isinstance(objects, ObservedObjects):
        objects.opened(key, "hit" if usable else "miss")
    return cached


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


def _wrong(path: Path, bytes_: int, sha256: str) -> str | None:
    """What is wrong with a file, as far as looking at it is cheap; None: nothing."""
    size = path.stat().st_size
    if size != bytes_:
        return f"has {size} bytes instead of {bytes_}"
    if size <= VERIFIED_AT_OPEN_BYTES and (found := sha256_file(path)) != sha256:
        return f"has the SHA-256 {found} instead of {sha256}"
    return None
