"""The object store port."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bedplate.errors import InvalidRequest, NotFound, ObjectDamaged

# A component beginning with a dot is refused: it shuts out "..", and leaves hidden names to the adapters.
_KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*)*")
_KEY_LENGTH_MAX = 512


class ObjectStore(Protocol):
    """Named immutable blobs.

    These few methods are enough because nothing is ever changed in place: a reader takes whole objects, byte
    ranges, or a local file to map into memory; a writer puts whole objects, atomically and durably (when
    ``put`` returns, the object survives a power cut and nobody ever saw half of it). What must change by
    compare-and-swap is a row in the database. ``modified_at`` lets the collector leave young objects alone.

    Keys are ``/``-separated names of letters, digits and ``. _ = @ + -``. All methods may be called from
    several threads. What may pass is tried again by the adapter; a store that stays out of reach raises
    :class:`~bedplate.errors.Unavailable`, one without room :class:`~bedplate.errors.StorageFull`. Who knows
    the digest of what it reads says so: then it gets these bytes or
    :class:`~bedplate.errors.ObjectDamaged`.
    """

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store ``data``, replacing what was there."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a copy of the file at ``path``."""

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return the whole object (NotFound where there is none; ObjectDamaged if it is not ``sha256``)."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes ``start`` to ``start + length``, fewer where the object ends before (NotFound)."""

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Write the object to ``path``: it appears there whole, and as ``sha256`` says, or not at all."""

    def local_path(self, key: str) -> Path | None:
        """The object's file where it lies on this machine, to be mapped in place; None where it does not."""

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""

    def modified_at(self, key: str) -> datetime | None:
        """When the object was last put, by the store's clock; None where there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``, in no particular order."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        """A URL that reads the object without credentials; None where the store serves no HTTP."""


def check_key(key: str) -> str:
    """Return ``key`` if it is a legal object key.

    Raises:
        InvalidRequest: it is empty, too long, or holds a component that could leave the store's root.
    """
    if len(key) > _KEY_LENGTH_MAX or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{key!r} is not an object key: use '/'-separated names of letters, digits and '._=@+-' that do "
            f"not begin with a dot, {_KEY_LENGTH_MAX} characters at most."
        )
    return key


def damaged(key: str, expected: str, found: str) -> ObjectDamaged:
    return ObjectDamaged(
        f"object {key!r} is damaged: it has the SHA-256 {found} instead of {expected}. Restore it from a "
        "copy, or make it again.",
        key=key,
    )


def missing(key: str) -> NotFound:
    return NotFound(f"there is no object {key!r} in the object store.", key=key)
