"""A whole space as one Arrow IPC stream: encoded without copying a vector, decoded from any chunks.

The stream is an ordinary one; any Arrow library reads it. Its length is known before the first batch is made,
so that servers need not cut it into HTTP chunks, which costs a copy, and clients notice a stream cut short.
Layout: arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.codecs.arrow_messages import body_length
from bedplate.codecs.columns import (
    Keys,
    Vectors,
    float_dtype,
    keys_from_arrow,
    keys_to_arrow,
    vectors_from_arrow,
    vectors_to_arrow,
)
from bedplate.errors import InternalError

KEY, VECTOR = "key", "vector"
SCAN_COLUMNS = (KEY, VECTOR)
_CONTINUATION = 0xFFFFFFFF
_PREFIX_BYTES = 8
_END_BYTES = 8
_ALIGNMENT = 8
_SMALL_BYTES = 1 << 16
_METADATA_BYTES_MAX = 1 << 20
_BODY_BYTES_MAX = 1 << 32


@dataclass(frozen=True, slots=True)
class ScanInfo:
    """What a scan's schema metadata say: which state of which version's space, and which rows of it.

    Attributes:
        reference: ``core@7/item``, the version as a number.
        snapshot: 0 where nothing but writes exists.
        sequence: every write up to it is in the scan, none after it.
        first_row: the number of the first row, counted over the whole space.
        rows: how many come.
    """

    reference: str
    snapshot: int
    sequence: int
    first_row: int
    rows: int

    def to_metadata(self) -> dict[str, str]:
        return {f"bedplate.{name}": str(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> ScanInfo:
        """Raises InternalError: it is no scan's metadata."""
        try:
            texts = {name: (metadata or {})[f"bedplate.{name}".encode()].decode() for name in cls.__slots__}
            numbers = {name: int(text) for name, text in texts.items() if name != "reference"}
        except (KeyError, ValueError) as error:
            raise InternalError(
                f"The stream is no scan of a space: {error} is missing or garbled."
            ) from error
        return cls(reference=texts["reference"], **numbers)


def scan_schema(info: ScanInfo, key_type: str, dim: int, dtype: str, columns: Sequence[str]) -> pa.Schema:
    """``key`` int64 or string, ``vector`` FixedSizeList<float16|float32>[dim]; those of ``columns``."""
    element = pa.float16() if float_dtype(dtype).itemsize == 2 else pa.float32()
    kinds = {KEY: pa.int64() if key_type == "int64" else pa.string(), VECTOR: pa.list_(element, dim)}
    return pa.schema([(name, kinds[name]) for name in columns], metadata=info.to_metadata())


def scan_length(schema: pa.Schema, batches: Iterable[tuple[int, int]]) -> int:
    """Bytes of the stream with batches of (rows, bytes of their keys without any offsets)."""
    one = pa.RecordBatch.from_arrays([_one(kind) for kind in schema.types], schema=schema)
    # The metadata of a batch are equally long whatever its rows, as long as it has some.
    overhead: int = pa.ipc.get_record_batch_size(one) - _body(
        schema, 1, 8 if pa.int64() in schema.types else 0
    )
    header = int(schema.serialize().size)
    return header + _END_BYTES + sum(overhead + _body(schema, rows, keys) for rows, keys in batches)


def _one(kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(
            pa.array(np.zeros(kind.list_size), kind.value_type), type=kind
        )
    return pa.array([0] if pa.types.is_integer(kind) else [""], kind)


def _body(schema: pa.Schema, rows: int, key_bytes: int) -> int:
    total = 0
    for kind in schema.types:
        if pa.types.is_fixed_size_list(kind):
            total += _padded(rows * kind.list_size * kind.value_type.bit_width // 8)
        else:
            total += _padded(key_bytes) + (_padded(4 * (rows + 1)) if pa.types.is_string(kind) else 0)
    return total


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


class _Parts:
    """A file that keeps what is written to it as it is: large buffers are not copied."""

    closed = False

    def __init__(self) -> None:
        self._small = bytearray()
        self._parts: list[bytes | memoryview] = []
        self._written = 0

    def write(self, data: bytes | pa.Buffer) -> int:
        size = len(data)
        self._written += size
        if size < _SMALL_BYTES:
            self._small += data
        else:
            self._flush_small()
            self._parts.append(memoryview(data))
        return size

    def take(self) -> list[bytes | memoryview]:
        self._flush_small()
        parts, self._parts = self._parts, []
        return parts

    def _flush_small(self) -> None:
        if self._small:
            self._parts.append(bytes(self._small))
            self._small.clear()

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


def encode_scan(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[list[bytes | memoryview]]:
    """The bytes of the stream, a list of chunks for each batch; they share the memory of the batches."""
    parts = _Parts()
    with pa.ipc.new_stream(pa.PythonFile(parts, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield parts.take()
    yield parts.take()


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """Rows of a space that follow each other.

    Attributes:
        keys: N keys; None where they were not asked for.
        vectors: [N, D] in the storage dtype; None where they were not asked for.
        first_row: the number of the first row, counted over the whole space.
        info: the state of the space that the rows are of.
    """

    keys: Keys | None
    vectors: Vectors | None
    first_row: int
    info: ScanInfo

    def __len__(self) -> int:
        some = self.keys if self.keys is not None else self.vectors
        return 0 if some is None else len(some)


def scan_batch_to_arrow(batch: ScanBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch of keys and vectors with the columns of ``schema``, over the same memory where it can be."""
    assert batch.keys is not None  # asked for together
    assert batch.vectors is not None
    columns = {KEY: keys_to_arrow(batch.keys), VECTOR: vectors_to_arrow(batch.vectors)}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


class ScanDecoder:
    """Decodes a scan read into memory of its own: a byte lies in its batch as soon as it has come.

    Attributes:
        info: the state of the space, once its head has come.
        ended: whether all has come.
    """

    def __init__(self) -> None:
        self.info: ScanInfo | None = None
        self.ended = False
        self._schema: pa.Schema | None = None
        self._row = 0
        self._message = np.empty(_PREFIX_BYTES, np.uint8)
        self._metadata_bytes = 0
        self._filled = 0

    def feed(self, chunk: bytes | memoryview) -> Iterator[ScanBatch]:
        """The batches that ``chunk`` completes. Raises what :meth:`filled` raises."""
        rest = memoryview(chunk)
        while len(rest):
            room = self.room()
            count = min(len(rest), len(room))
            room[:count] = rest[:count]
            rest = rest[count:]
            yield from self.filled(count)

    def room(self) -> memoryview:
        """Where the next bytes go; never empty. What follows the end is passed over."""
        return self._message.data[self._filled :]

    def filled(self, count: int) -> Iterator[ScanBatch]:
        """The batch that the first ``count`` bytes of the room complete, if they do.

        Raises:
            InternalError: the bytes are no scan.
        """
        if self.ended:
            return
        self._filled += count
        if self._filled < len(self._message):
            return
        if self._filled == _PREFIX_BYTES:
            self._prefix_came()
        elif self._filled > _PREFIX_BYTES + self._metadata_bytes or not self._metadata_came():
            message, self._message, self._filled = self._message, np.empty(_PREFIX_BYTES, np.uint8), 0
            try:
                yield from self._decode(message)
            except (pa.ArrowException, OSError) as error:
                raise InternalError(f"The answer is no Arrow stream: {error}.") from error

    def _prefix_came(self) -> None:
        mark, size = struct.unpack("<II", self._message.data)
        if mark != _CONTINUATION or size > _METADATA_BYTES_MAX:
            raise InternalError("The answer is no Arrow stream; is there a proxy that changes answers?")
        self.ended = size == 0
        self._metadata_bytes = size
        if self.ended:
            self._filled = 0
        else:
            self._grow(size)

    def _metadata_came(self) -> bool:
        """Whether a body follows them."""
        try:
            body = body_length(self._message[_PREFIX_BYTES:].tobytes())
        except struct.error as error:
            raise InternalError("The answer is no Arrow stream; a message of it is garbled.") from error
        if not 0 <= body <= _BODY_BYTES_MAX:
            raise InternalError(f"The answer is no Arrow stream; a message of it has {body} bytes.")
        self._grow(body)
        return body > 0

    def _grow(self, count: int) -> None:
        longer = np.empty(self._filled + count, np.uint8)
        longer[: self._filled] = self._message
        self._message = longer

    def _decode(self, message: NDArray[np.uint8]) -> Iterator[ScanBatch]:
        source = pa.py_buffer(message)
        if self._schema is None:
            self._schema = pa.ipc.read_schema(source)
            self.info = ScanInfo.from_metadata(self._schema.metadata)
            self._row = self.info.first_row
            return
        batch = pa.ipc.read_record_batch(source, self._schema)
        batch.validate()
        names = batch.schema.names
        keys = keys_from_arrow(pa.chunked_array([batch.column(KEY)])) if KEY in names else None
        vectors = vectors_from_arrow(pa.chunked_array([batch.column(VECTOR)])) if VECTOR in names else None
        assert self.info is not None  # comes with the schema
        yield ScanBatch(keys, vectors, self._row, self.info)
        self._row += batch.num_rows
