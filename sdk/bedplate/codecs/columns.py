"""Arrow streams, key columns and vector columns: the building blocks of the other codecs.

Shape suffixes: N rows, D dimension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.codecs.arrow_messages import any_compressed
from bedplate.errors import (
    DimensionMismatch,
    EmptyBatch,
    InvalidRequest,
    KeyTypeMismatch,
)

Keys = NDArray[np.int64] | list[str]
"""Keys of a space: an int64 array, or a list of strings."""

Vectors = NDArray[np.float16] | NDArray[np.float32]

_FLOATS: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


def float_dtype(name: str) -> np.dtype[Any]:
    """The little-endian NumPy dtype of ``float16`` or ``float32``.

    Raises:
        InvalidRequest: any other name.
    """
    try:
        return _FLOATS[name]
    except KeyError:
        raise InvalidRequest(f"dtype {name!r} is not known; use float32 or float16.") from None


def encode_table(table: pa.Table) -> bytes:
    """One Arrow IPC stream that holds ``table``."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode_table(body: bytes | memoryview) -> pa.Table:
    """Read an Arrow IPC stream sent by somebody we do not trust; every buffer is checked.

    Raises:
        InvalidRequest: the bytes are not a complete, valid Arrow IPC stream, or its buffers are compressed:
            what they unpack to has no bound.
    """
    try:
        source = pa.py_buffer(body)
        compressed = any_compressed(source)
        if not compressed:
            table = pa.ipc.open_stream(source).read_all()
            table.validate(full=True)
            _ = table.column_names  # raises here, and not later, where a name is no UTF-8
    except (pa.ArrowException, OSError, struct.error, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"The body is not a valid Arrow IPC stream: {error}. Write it with pyarrow.ipc.new_stream."
        ) from error
    if compressed:
        raise InvalidRequest("The Arrow stream is compressed, which is not read here; write it uncompressed.")
    return table


def column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The only column called ``name``.

    Raises:
        InvalidRequest: there is none, or several.
    """
    indices = table.schema.get_all_field_indices(name)
    if len(indices) != 1:
        found = ", ".join(table.column_names) or "none"
        trouble = "is missing" if not indices else "stands there more than once"
        raise InvalidRequest(f"Column {name!r} {trouble}; the columns are: {found}.", column=name)
    return table.column(indices[0])


def refuse_nulls(values: pa.ChunkedArray, name: str) -> None:
    """Raise InvalidRequest with the first row of ``values`` that is null."""
    if values.null_count:
        raise bad_value(name, pc.index(pc.is_null(values), True).as_py(), "is null; give a value.")


def place(name: str, row: int) -> str:
    """How errors name a value's place; rows count from 0."""
    return f"Column {name!r}, row {row}: "


def bad_value(name: str, row: int, what: str) -> InvalidRequest:
    """The error about one value: ``detail`` begins with its place, ``context`` has column and row."""
    return InvalidRequest(place(name, row) + what, column=name, row=row)


def as_keys(keys: Sequence[Any] | NDArray[Any]) -> Keys:
    """Any sequence of integers or strings as ``Keys``.

    Raises:
        KeyTypeMismatch: the keys are neither all integers within int64 nor all strings.
    """
    if isinstance(keys, np.ndarray) and keys.dtype == np.int64:
        return np.ascontiguousarray(keys.reshape(-1))
    values = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
    if all(isinstance(value, str) for value in values):
        return values
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            raise KeyTypeMismatch("A key does not fit in a signed 64-bit integer; use string keys.") from None
    raise KeyTypeMismatch("Keys must be all integers or all strings, as the space's key_type says.")


def keys_to_arrow(keys: Keys) -> pa.Array:
    return pa.array(keys, pa.int64() if isinstance(keys, np.ndarray) else pa.string())


def keys_from_arrow(values: pa.ChunkedArray, name: str = "key") -> Keys:
    """A key column: any integer type becomes int64, any string type (also a dictionary) a list.

    Raises:
        InvalidRequest: a key is null.
        KeyTypeMismatch: the column holds something else.
    """
    refuse_nulls(values, name)
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    try:
        if pa.types.is_integer(kind):
            integers = values.cast(pa.int64())
            whole = integers.chunk(0) if integers.num_chunks == 1 else integers
            return np.ascontiguousarray(whole.to_numpy())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            found: list[str] = values.cast(pa.string()).to_pylist()
            return found
    except pa.ArrowInvalid:
        raise KeyTypeMismatch(f"Column {name!r} holds a key that does not fit in int64.") from None
    raise KeyTypeMismatch(f"Column {name!r} is {values.type}; keys are int64 or string.", column=name)


def encode_keys_raw(keys: NDArray[np.int64]) -> bytes:
    """Little-endian int64, row after row."""
    return np.ascontiguousarray(keys, dtype="<i8").tobytes()


def decode_keys_raw(body: bytes | memoryview) -> NDArray[np.int64]:
    """The int64 keys [N] of a raw body, without a copy.

    Raises:
        EmptyBatch: there is no key.
        InvalidRequest: the length is not a multiple of 8 bytes.
    """
    if len(body) == 0:
        raise EmptyBatch("No keys were sent; send at least one.")
    if len(body) % 8:
        raise InvalidRequest(
            f"A raw body holds little-endian int64 keys of 8 bytes each, but {len(body)} bytes came."
        )
    return np.frombuffer(body, dtype="<i8")


def encode_keys_arrow(keys: Keys) -> bytes:
    """A stream with one column ``key``."""
    return encode_table(pa.table({"key": keys_to_arrow(keys)}))


def decode_keys_arrow(body: bytes | memoryview) -> Keys:
    """The keys of a stream with a column ``key``.

    Raises:
        EmptyBatch, InvalidRequest, KeyTypeMismatch.
    """
    keys = keys_from_arrow(column(decode_table(body), "key"))
    if len(keys) == 0:
        raise EmptyBatch("No keys were sent; send at least one.")
    return keys


def vectors_to_arrow(vectors_ND: Vectors) -> pa.Array:
    """FixedSizeList<float16|float32>[D] over the same memory where it is contiguous."""
    flat = np.ascontiguousarray(vectors_ND).reshape(-1)
    if vectors_ND.shape[1] == 0:
        raise DimensionMismatch("Vectors of dimension 0 cannot be sent.")
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors_ND.shape[1])


def vectors_from_arrow(values: pa.ChunkedArray, name: str = "vector") -> Vectors:
    """A vector column as [N, D] in its own dtype; float64 becomes float32, lists of one length are taken too.

    Raises:
        DimensionMismatch: lists of different lengths.
        InvalidRequest: a null, or not a column of float vectors.
    """
    refuse_nulls(values, name)
    kind = values.type
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise InvalidRequest(f"Column {name!r} is {kind}; send FixedSizeList<float16|float32>.", column=name)
    if not pa.types.is_floating(kind.value_type):
        raise InvalidRequest(
            f"Column {name!r} holds {kind.value_type}; send float16 or float32.", column=name
        )
    dim = kind.list_size if pa.types.is_fixed_size_list(kind) else _common_length(values, name)
    flat = pc.list_flatten(values)
    refuse_nulls(flat, f"{name} (element)")
    if pa.types.is_float64(kind.value_type):
        flat = flat.cast(pa.float32())
    # One chunk stays where it is; several, as to_numpy() of any number of chunks, are copied together.
    whole = flat.chunk(0) if flat.num_chunks == 1 else flat
    return np.ascontiguousarray(whole.to_numpy()).reshape(len(values), dim)


def _common_length(values: pa.ChunkedArray, name: str) -> int:
    lengths = pc.list_value_length(values).to_numpy()
    if len(lengths) == 0:
        return 0
    different = np.flatnonzero(lengths != lengths[0])
    if len(different):
        row = int(different[0])
        raise DimensionMismatch(
            f"Column {name!r}: row {row} has {lengths[row]} elements, row 0 has {lengths[0]}.", row=row
        )
    return int(lengths[0])


def encode_vectors_raw(vectors_ND: NDArray[Any], dtype: str = "float32") -> bytes:
    """Row-major little-endian ``float32`` or ``float16``."""
    return np.ascontiguousarray(vectors_ND, dtype=float_dtype(dtype)).tobytes()


def decode_vectors_raw(body: bytes | memoryview, dim: int, dtype: str = "float32") -> NDArray[Any]:
    """[N, dim] of a raw body, without a copy.

    Raises:
        EmptyBatch: no vector was sent.
        DimensionMismatch: the length is not a multiple of one vector's bytes.
    """
    if len(body) == 0:
        raise EmptyBatch("No vectors were sent; send at least one.")
    element = float_dtype(dtype)
    if len(body) % (dim * element.itemsize):
        raise DimensionMismatch(
            f"{len(body)} bytes are not a multiple of {dim * element.itemsize}: the dimension is {dim} and "
            f" {dtype} takes {element.itemsize} bytes.",
            dim=dim,
        )
    return np.frombuffer(body, dtype=element).reshape(-1, dim)


def metadata_of(table: pa.Table) -> dict[str, str]:
    """The schema's metadata as text."""
    return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
