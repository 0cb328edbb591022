"""The port through which the registry keeps the bytes of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class BlobStore(Protocol):
    """Few methods are enough: parts are put whole, read back in ranges, and a joined file is put once.

    Any object store of the platform fits. A put is atomic and durable: a reader sees a whole object or none.
    """

    def put(self, key: str, data: bytes | memoryview) -> None: ...

    def put_file(self, key: str, path: Path) -> None: ...

    def get_range(self, key: str, start: int, length: int) -> bytes: ...

    def size(self, key: str) -> int | None:
        """Bytes of the object, None where there is none."""
        ...

    def delete(self, key: str) -> None:
        """Idempotent."""
        ...

    def list(self, prefix: str) -> Iterator[str]: ...
