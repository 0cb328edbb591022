"""A full disk, told by name: which directory has no room left, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedplate.errors import StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TEXTS = tuple(os.strerror(number) for number in sorted(_FULL))


def is_full_disk(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, says that a disk or a quota is full.

    Libraries that write by themselves raise errors of their own; their text is then all there is.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if isinstance(seen, RuntimeError) and any(text in str(seen) for text in _TEXTS):
            return True
        seen = seen.__cause__
    return False


@contextmanager
def named_full_disk(directory: Path) -> Iterator[None]:
    """Turn the failure of a write for want of room in ``directory`` into StorageFull."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not is_full_disk(error):
            raise
        raise StorageFull(
            f"the disk of {directory} is full: free room there or give it more, then try again. Nothing was "
            "written; reads go on.",
            directory=str(directory),
        ) from error
