"""Lookup, search and upsert on the wire.

Shape suffixes: N rows, Q queries, K hits a query, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.codecs.columns import (
    Keys,
    Vectors,
    column,
    decode_table,
    encode_table,
    float_dtype,
    keys_from_arrow,
    keys_to_arrow,
    metadata_of,
    vectors_from_arrow,
    vectors_to_arrow,
)
from bedplate.errors import EmptyBatch, InternalError, InvalidRequest

MISSING_KEY = -1
"""Pads int64 answers that found fewer than k rows; the score beside it is -inf, which no real hit has."""

HitKeys = NDArray[np.int64] | list[list[str | None]]
"""[Q][K]: int64 array padded with MISSING_KEY, or lists of strings padded with None."""


@dataclass(frozen=True, slots=True)
class LookupColumns:
    """A lookup's answer: ``vectors`` [N, D] is zero wherever ``found`` [N] is false."""

    keys: Keys
    found: NDArray[np.bool_]
    vectors: Vectors
    version: str
    snapshot: int


@dataclass(frozen=True, slots=True)
class SearchQueries:
    """Exactly one of the two is set: ``vectors`` [Q, D] or ``keys`` [Q]."""

    vectors: Vectors | None = None
    keys: Keys | None = None


@dataclass(frozen=True, slots=True)
class SearchColumns:
    """A search's answer, best hit first; ``scores`` float32 [Q, K] is -inf where there was no further hit."""

    keys: HitKeys
    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    version: str
    snapshot: int


UNANSWERED = 2
"""In the mask of a raw answer: nobody who knows the key answered."""


def encode_lookup_raw(
    found_N: NDArray[np.bool_],
    vectors_ND: Vectors,
    dtype: str | None = None,
    answered_N: NDArray[np.bool_] | None = None,
) -> bytes:
    """Row-major little-endian vectors, then one byte a row: 1 where the key was found, 2 where its shard did
    not answer.
    """
    vectors, mask = lookup_parts_raw(found_N, vectors_ND, dtype)
    if answered_N is not None:
        mask = _mask(found_N, answered_N)
    return b"".join((vectors, mask))  # one copy of the vectors, not two


def _mask(found_N: NDArray[np.bool_], answered_N: NDArray[np.bool_] | None = None) -> memoryview:
    if answered_N is None:
        return np.ascontiguousarray(found_N).view(np.uint8).data
    return np.where(answered_N, found_N, np.uint8(UNANSWERED)).astype(np.uint8).data


def lookup_parts_raw(
    found_N: NDArray[np.bool_], vectors_ND: Vectors, dtype: str | None = None
) -> tuple[memoryview, memoryview]:
    """The same in two parts: the vectors and the mask. Nothing is copied where the dtype is the array's."""
    element = float_dtype(dtype) if dtype else vectors_ND.dtype.newbyteorder("<")
    vectors = np.ascontiguousarray(vectors_ND, dtype=element)
    return vectors.data, _mask(found_N)


def decode_lookup_raw(
    body: bytes | memoryview, *, rows: int, dim: int, dtype: str
) -> tuple[NDArray[np.bool_], Vectors]:
    """``(found [rows], vectors [rows, dim])``, read-only views of ``body``.

    Raises:
        InternalError: the body's length does not fit the announced rows, dim and dtype.
    """
    element = float_dtype(dtype)
    vector_bytes = rows * dim * element.itemsize
    if len(body) != vector_bytes + rows:
        raise InternalError(
            f"The answer holds {len(body)} bytes where {rows} x {dim} {dtype} and a mask take "
            f"{vector_bytes + rows}: it was cut short or re-encoded on the way."
        )
    vectors = np.frombuffer(body, dtype=element, count=rows * dim).reshape(rows, dim)
    mask = np.frombuffer(body, dtype=np.uint8, offset=vector_bytes)
    return mask == 1, vectors


def unanswered_raw(body: bytes | memoryview, *, rows: int) -> NDArray[np.bool_]:
    """Of a raw lookup's answer: for which keys [rows] nobody answered who knows them."""
    mask: NDArray[np.bool_] = np.frombuffer(body, dtype=np.uint8, offset=len(body) - rows) == UNANSWERED
    return mask


def found_raw(body: bytes | memoryview, *, rows: int) -> NDArray[np.bool_]:
    """Of a raw answer to a search by key: which of the keys [rows] exist."""
    mask: NDArray[np.bool_] = np.frombuffer(body, dtype=np.uint8, offset=len(body) - rows) == 1
    return mask


def encode_lookup_arrow(
    keys: Keys,
    found_N: NDArray[np.bool_],
    vectors_ND: Vectors,
    *,
    version: str,
    snapshot: int,
    answered_N: NDArray[np.bool_] | None = None,
) -> bytes:
    """Columns key, found, vector; metadata ``bedplate.version`` and ``bedplate.snapshot``.

    ``found`` is null where a key's shard did not answer.
    """
    found = pa.array(found_N, mask=None if answered_N is None else ~answered_N)
    table = pa.table({"key": keys_to_arrow(keys), "found": found, "vector": vectors_to_arrow(vectors_ND)})
    metadata = {"bedplate.version": version, "bedplate.snapshot": str(snapshot)}
    return encode_table(table.replace_schema_metadata(metadata))


def decode_lookup_arrow(body: bytes | memoryview) -> LookupColumns:
    """Raises InvalidRequest where the stream or a column is not as ``encode_lookup_arrow`` writes it."""
    table = decode_table(body)
    metadata = metadata_of(table)
    return LookupColumns(
        keys=keys_from_arrow(column(table, "key")),
        found=pc.fill_null(column(table, "found"), False).to_numpy(),
        vectors=vectors_from_arrow(column(table, "vector")),
        version=metadata.get("bedplate.version", ""),
        snapshot=int(metadata.get("bedplate.snapshot", "0")),
    )


def encode_search_arrow(queries: SearchQueries) -> bytes:
    """One column: ``vector`` or ``key``."""
    if (queries.vectors is None) == (queries.keys is None):
        raise InvalidRequest("Search by vectors or by keys: give exactly one of the two.")
    if queries.vectors is not None:
        return encode_table(pa.table({"vector": vectors_to_arrow(queries.vectors)}))
    return encode_table(pa.table({"key": keys_to_arrow(queries.keys)}))  # type: ignore[arg-type]  # checked above


def decode_search_arrow(body: bytes | memoryview) -> SearchQueries:
    """Queries of a stream with a column ``vector`` or a column ``key``.

    Raises:
        EmptyBatch, InvalidRequest (both or none of the columns), DimensionMismatch, KeyTypeMismatch.
    """
    table = decode_table(body)
    names = [name for name in ("vector", "key") if name in table.column_names]
    if len(names) != 1:
        raise InvalidRequest("Send exactly one of the columns 'vector' and 'key'.")
    if table.num_rows == 0:
        raise EmptyBatch("No queries were sent; send at least one.")
    if names == ["vector"]:
        return SearchQueries(vectors=vectors_from_arrow(column(table, "vector")))
    return SearchQueries(keys=keys_from_arrow(column(table, "key")))


def encode_search_answer_raw(
    keys_QK: NDArray[np.int64],
    scores_QK: NDArray[np.float32],
    found_Q: NDArray[np.bool_] | None = None,
    answered_Q: NDArray[np.bool_] | None = None,
) -> bytes:
    """int64 keys [Q, K], then float32 scores [Q, K], little-endian; of a search by key then the mask that
    lookups have, a byte for each query's key.
    """
    keys = np.ascontiguousarray(keys_QK, dtype="<i8")
    mask = b"" if found_Q is None else _mask(found_Q, answered_Q)
    return b"".join((keys.data, np.ascontiguousarray(scores_QK, dtype="<f4").data, mask))


def decode_search_answer_raw(
    body: bytes | memoryview, *, queries: int, k: int, by_key: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """``(keys [Q, K], scores [Q, K])``, read-only views of ``body``; :func:`found_raw` reads the mask that
    follows them in the answer to a search ``by_key``.

    Raises:
        InternalError: the length does not fit.
    """
    expected = queries * (k * 12 + by_key)
    if len(body) != expected:
        raise InternalError(f"The answer holds {len(body)} bytes where {queries} x {k} hits take {expected}.")
    keys = np.frombuffer(body, dtype="<i8", count=queries * k).reshape(queries, k)
    scores = np.frombuffer(body, dtype="<f4", count=queries * k, offset=queries * k * 8).reshape(queries, k)
    return keys, scores


def encode_search_answer_arrow(
    keys: HitKeys | Sequence[Sequence[Any]],
    scores_QK: NDArray[np.float32],
    found_Q: NDArray[np.bool_],
    *,
    version: str,
    snapshot: int,
) -> bytes:
    """Columns query int32, key, score float32, one row a hit (padding is left out).

    The metadata carries ``bedplate.k`` and ``bedplate.found`` (a digit 0 or 1 for each query), because a
    query without hits has no row to tell of it.
    """
    queries, k = scores_QK.shape
    real = scores_QK != -np.inf
    if isinstance(keys, np.ndarray) and keys.dtype == np.int64:
        hits = pa.array(keys[real], pa.int64())
    else:
        flat = np.empty(queries * k, dtype=object)
        for query, row in enumerate(keys):
            flat[query * k : query * k + len(row)] = list(row)
        values = flat[real.reshape(-1)].tolist()
        hits = pa.array(values, pa.int64() if values and isinstance(values[0], int) else pa.string())
    query_column = np.repeat(np.arange(queries, dtype=np.int32), real.sum(axis=1))
    table = pa.table({"query": query_column, "key": hits, "score": pa.array(scores_QK[real], pa.float32())})
    metadata = {
        "bedplate.version": version,
        "bedplate.snapshot": str(snapshot),
        "bedplate.k": str(k),
        "bedplate.found": "".join("1" if one else "0" for one in found_Q),
    }
    return encode_table(table.replace_schema_metadata(metadata))


def decode_search_answer_arrow(body: bytes | memoryview) -> SearchColumns:
    """The answer padded back to [Q, K]: keys with MISSING_KEY or None, scores with -inf.

    Raises:
        InvalidRequest: the stream is not as ``encode_search_answer_arrow`` writes it.
    """
    table = decode_table(body)
    metadata = metadata_of(table)
    if "bedplate.found" not in metadata or "bedplate.k" not in metadata:
        raise InvalidRequest("The stream lacks the metadata bedplate.found and bedplate.k.")
    found = np.frombuffer(metadata["bedplate.found"].encode(), dtype=np.uint8) == ord("1")
    queries, k = len(found), int(metadata["bedplate.k"])
    query = column(table, "query").to_numpy()
    counts = np.bincount(query, minlength=queries) if len(query) else np.zeros(queries, dtype=np.int64)
    if len(counts) != queries or (queries and counts.max() > k):
        raise InvalidRequest("The stream holds hits of more queries, or more hits, than its metadata says.")
    rank = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    scores[query, rank] = column(table, "score").to_numpy()
    flat = keys_from_arrow(column(table, "key"))
    keys: HitKeys
    if isinstance(flat, np.ndarray):
        keys = np.full((queries, k), MISSING_KEY, dtype=np.int64)
        keys[query, rank] = flat
    else:
        padded = np.full((queries, k), None, dtype=object)
        padded[query, rank] = np.array(flat, dtype=object)
        keys = padded.tolist()
    return SearchColumns(
        keys, scores, found, metadata.get("bedplate.version", ""), int(metadata.get("bedplate.snapshot", "0"))
    )


def encode_upsert_arrow(
    keys: Keys, vectors_ND: Vectors, attributes: Mapping[str, Any] | None = None
) -> bytes:
    """Columns key and vector, and one for each attribute.

    Raises:
        InvalidRequest: there are not as many keys as vectors and values, or values that are no column.
    """
    if len(keys) != len(vectors_ND):
        raise InvalidRequest(f"{len(keys)} keys came with {len(vectors_ND)} vectors; send one for each.")
    columns = {"key": keys_to_arrow(keys), "vector": vectors_to_arrow(vectors_ND)}
    for name, values in (attributes or {}).items():
        if name in columns or len(values) != len(keys):
            raise InvalidRequest(f"attribute {name!r}: give one value for each of the {len(keys)} keys.")
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, TypeError) as error:
            raise InvalidRequest(f"attribute {name!r} is no column: {error}.") from error
    return encode_table(pa.table(columns))


def decode_upsert_arrow(body: bytes | memoryview) -> tuple[Keys, Vectors, dict[str, Any]]:
    """``(keys [N], vectors [N, D], attributes {name: [N]})``; whether they fit the space, the store decides.

    Raises:
        EmptyBatch, InvalidRequest, DimensionMismatch, KeyTypeMismatch.
    """
    table = decode_table(body)
    if table.num_rows == 0:
        raise EmptyBatch("No vectors were sent; send at least one.")
    keys, vectors = keys_from_arrow(column(table, "key")), vectors_from_arrow(column(table, "vector"))
    others = [name for name in table.column_names if name not in ("key", "vector")]
    return keys, vectors, {name: table.column(name) for name in others}
