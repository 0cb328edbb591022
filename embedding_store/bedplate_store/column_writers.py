"""Key columns written as their keys come, in ascending order, in memory that does not grow with them."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import KeyType
from bedplate_store.keys import Keys, StringKeys, hash_keys
from bedplate_store.segment_files import FileInfo

_COPY_BYTES = 1 << 20
_HASH_BUCKETS = 256
_BUCKET_BYTES_IN_MEMORY = 32 << 10
_HASHED = np.dtype([("hash", "<u8"), ("row", "<u4")])


class HashingFile:
    """A new file that knows its size and SHA-256."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 - closed by __exit__
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._bytes += self._file.write(data)

    def finish(self) -> FileInfo:
        """Close the file."""
        self._file.close()
        return FileInfo(self._bytes, self._digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class ColumnWriter(Protocol):
    """Writes the file that :func:`bedplate_store.segment_files.column_bytes` gives for all keys at once."""

    def append(self, keys: Keys) -> None:
        """The next keys: sorted, and greater than all before."""

    def finish(self) -> FileInfo:
        """Complete the file."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def column_writer(path: Path, key_type: KeyType) -> ColumnWriter:
    """The column goes to ``path``; what is only needed meanwhile lies beside it, named after it."""
    return Int64ColumnWriter(path) if key_type == "int64" else StringColumnWriter(path)


class Int64ColumnWriter(HashingFile):
    """The keys are the file."""

    def append(self, keys: Keys) -> None:
        assert not isinstance(keys, StringKeys)
        if len(keys):
            self.write(np.ascontiguousarray(keys, "<i8").data.cast("B"))


class StringColumnWriter:
    """Parts whose place is known only at the end wait in files of their own.

    The hashes must be sorted, but the keys come sorted by their text: so the hashes are dealt out into 256
    buckets by their highest bits, and each bucket is sorted by itself. A bucket is what must fit in memory:
    12 bytes for every 256th key, 47 MB for a thousand million keys. Up to 32 KiB it waits in memory (8 MiB in
    all): making 256 files took small merges longer than everything else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = 0
        self._heap_bytes = 0
        with ExitStack() as opened:

            def part(name: str) -> BinaryIO:
                return opened.enter_context(open(path.with_name(f"{path.name}.{name}"), "x+b"))

            self._offsets, self._heap, self._hash_rows = part("offsets"), part("heap"), part("rows")
            self._buckets = [
                opened.enter_context(SpooledTemporaryFile(_BUCKET_BYTES_IN_MEMORY, dir=str(path.parent)))
                for _ in range(_HASH_BUCKETS)
            ]
            self._open = opened.pop_all()
        self._offsets.write(np.zeros(1, "<i8").tobytes())

    def append(self, keys: Keys) -> None:
        assert isinstance(keys, StringKeys)
        if len(keys) == 0:
            return
        self._offsets.write((keys.offsets[1:] + self._heap_bytes).astype("<i8").tobytes())
        self._heap.write(keys.heap.tobytes())
        hashed = np.empty(len(keys), _HASHED)
        hashed["hash"] = hash_keys(keys)
        hashed["row"] = np.arange(self._rows, self._rows + len(keys))
        bucket = (hashed["hash"] >> np.uint64(56)).astype(np.uint8)
        hashed = hashed[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket, minlength=_HASH_BUCKETS))
        for number, part in enumerate(np.split(hashed, ends[:-1])):
            self._buckets[number].write(part.tobytes())
        self._rows += len(keys)
        self._heap_bytes += int(keys.offsets[-1])

    def finish(self) -> FileInfo:
        with HashingFile(self._path) as file:
            _copy(self._offsets, file)
            for bucket in self._buckets:
                hashed = _sorted_bucket(bucket)
                file.write(hashed["hash"].tobytes())
                self._hash_rows.write(hashed["row"].tobytes())
            _copy(self._hash_rows, file)
            _copy(self._heap, file)
            return file.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _sorted_bucket(bucket: SpooledTemporaryFile[bytes]) -> NDArray[np.void]:
    """Ascending by hash; equal hashes stay ascending by row, as they were appended."""
    bucket.seek(0)
    hashed = np.frombuffer(bucket.read(), _HASHED)
    return hashed[np.argsort(hashed["hash"], kind="stable")]


def _copy(source: BinaryIO, target: HashingFile) -> None:
    source.seek(0)
    while data := source.read(_COPY_BYTES):
        target.write(data)
