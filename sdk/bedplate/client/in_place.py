"""Stored files that lie on this machine, or on a file system it shares: read where they are, not copied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from bedplate.client.downloads import file_digest
from bedplate.client.effects import Steps, Together
from bedplate.client.steps import blocking
from bedplate.errors import DigestMismatch

Identity: TypeAlias = tuple[int, ...]
"""Device, inode, size, times of the last change of content and of anything: no writer leaves them all."""
Known: TypeAlias = dict[Path, tuple[str, Identity]]


class StoredFile(Protocol):
    """What the platform says of a file that may be read in place."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def path(self) -> str | None: ...


def reachable(files: Sequence[StoredFile]) -> Steps[bool]:
    """Whether all of them can be read where they are stored."""
    return (yield from blocking(lambda: all(map(_is_reachable, files))))


def verified(files: Sequence[StoredFile], known: Known) -> Steps[None]:
    """Digest the files where they lie, several at a time; a file is digested again only if it was touched.

    Args:
        known: what this client has verified already; SHA-256 is several times slower than reading.

    Raises:
        DigestMismatch: one is damaged.
    """
    yield Together([_verify(file, known) for file in files])


def _is_reachable(file: StoredFile) -> bool:
    if file.path is None:
        return False
    try:
        return os.path.getsize(file.path) == file.bytes and os.access(file.path, os.R_OK)
    except OSError:
        return False


def _verify(file: StoredFile, known: Known) -> Steps[None]:
    path = Path(file.path or "")
    identity = yield from blocking(partial(_identity, path))
    if known.get(path) == (file.sha256, identity):
        return
    found = yield from blocking(partial(file_digest, path))
    if found != file.sha256:
        raise DigestMismatch(
            f"{file.path} has SHA-256 {found}, announced was {file.sha256}: the stored object is damaged; "
            "restore it from a copy.",
            file=file.name,
        )
    known[path] = (file.sha256, identity)


def _identity(path: Path) -> Identity:
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
