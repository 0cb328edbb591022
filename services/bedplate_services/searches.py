"""A search's body to queries, and its hits to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bedplate.codecs import (
    ARROW,
    JSON,
    RAW,
    Keys,
    MediaType,
    as_keys,
    decode_keys_raw,
    decode_search_arrow,
    decode_vectors_raw,
    encode_search_answer_arrow,
    encode_search_answer_raw,
    negotiate,
)
from bedplate.errors import BatchTooLarge, DimensionMismatch, EmptyBatch, InvalidRequest, NotAcceptable
from bedplate.wire.filters import Filter
from bedplate.wire.shards import ShardsAnswered
from bedplate.wire.store import SearchRequest
from bedplate_services.answers import Answer, missing_of
from bedplate_services.bodies import parse
from bedplate_services.directory import Located
from bedplate_services.lookups import nullable
from bedplate_store.readers import SearchResult

MAXIMUM_QUERIES = 10_000
MAXIMUM_K = 1000
_VECTOR, _KEY = "vector", "key"
MAXIMUM_HITS = 1_000_000
"""Queries times k: an answer of that many hits as JSON already takes some hundred MB while it is made."""
MAXIMUM_EF = 4096


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the query string of a search says about its bulk body.

    Attributes:
        dim: what the caller believes to be the dimension of raw vectors; None: it does not say.
        by_key: a raw body holds int64 keys, not vectors.
    """

    k: int = 10
    ef: int | None = None
    recall: float | None = None
    filter: Filter | None = None
    dim: str | None = None
    by_key: bool = False


def read_parameters(query: Mapping[str, str]) -> Parameters:
    """``?k=``, ``?ef=``, ``?recall=`` and ``?filter=`` (JSON); of raw bytes also ``?dim=`` and ``?by=``.

    Raises:
        InvalidRequest: one of them is malformed or out of range.
    """
    by = query.get("by", _VECTOR)
    if by not in (_VECTOR, _KEY):
        raise InvalidRequest(f"by={by} is not allowed; use {_VECTOR} or {_KEY}.")
    return Parameters(
        k=_bounded(query, "k", MAXIMUM_K) or 10,
        ef=_bounded(query, "ef", MAXIMUM_EF),
        recall=_recall(query),
        filter=_filter(query),
        dim=query.get("dim"),
        by_key=by == _KEY,
    )


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for: float32 [Q, D] vectors, or Q keys."""

    vectors: NDArray[np.float32] | None
    keys: Keys | None
    k: int
    ef: int | None
    recall: float | None = None
    filter: Filter | None = None

    def __len__(self) -> int:
        asked = self.vectors if self.vectors is not None else self.keys
        return len(asked) if asked is not None else 0


def query_of(body: bytes, media: str, parameters: Mapping[str, str], dim: int) -> Query:
    """The query of a body of media type JSON, Arrow or raw; the latter two take parameters.

    Raises:
        EmptyBatch, BatchTooLarge, DimensionMismatch, KeyTypeMismatch, InvalidRequest.
    """
    if media == JSON:
        return _checked(_from_document(parse(SearchRequest, body)))
    asked = read_parameters(parameters)
    if media == RAW:
        return raw_query(body, asked, dim)
    columns = decode_search_arrow(body)
    vectors = columns.vectors
    if vectors is not None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    return _checked(_query(vectors, None if vectors is not None else columns.keys, asked))


def raw_query(body: bytes, asked: Parameters, dim: int) -> Query:
    """The query of a raw body: float32 vectors of dimension ``dim``, or int64 keys.

    Raises:
        EmptyBatch, BatchTooLarge, DimensionMismatch, InvalidRequest.
    """
    if asked.by_key:
        return _checked(_query(None, decode_keys_raw(body), asked))
    _check_dim(asked, dim)
    return _checked(_query(decode_vectors_raw(body, dim), None, asked))


def _query(vectors: NDArray[np.float32] | None, keys: Keys | None, asked: Parameters) -> Query:
    return Query(vectors, keys, asked.k, asked.ef, asked.recall, asked.filter)


def _checked(query: Query) -> Query:
    if len(query) == 0:
        raise EmptyBatch("No queries were sent; send at least one.")
    if len(query) > MAXIMUM_QUERIES:
        raise BatchTooLarge(f"{len(query)} queries were sent; send {MAXIMUM_QUERIES} at most.")
    if len(query) * query.k > MAXIMUM_HITS:
        raise BatchTooLarge(
            f"{len(query)} queries times k={query.k} are over {MAXIMUM_HITS:,} hits; send fewer queries or a "
            "smaller k."
        )
    return query


def _from_document(document: SearchRequest) -> Query:
    if (document.vectors is None) == (document.keys is None):
        raise InvalidRequest("Search by vectors or by keys: give exactly one of the two.")
    vectors = None if document.vectors is None else matrix(document.vectors)
    keys = None if document.keys is None else as_keys(document.keys)
    return Query(vectors, keys, document.k, document.ef, document.recall, document.filter)


def matrix(rows: list[list[float]]) -> NDArray[np.float32]:
    """[N, D] of a JSON document's vectors.

    Raises:
        DimensionMismatch: rows of different lengths, naming the first that differs from row 0.
    """
    if not rows:
        return np.zeros((0, 0), np.float32)
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        first = next(index for index, row in enumerate(rows) if len(row) != len(rows[0]))
        raise DimensionMismatch(
            f"Vector {first} has {len(rows[first])} elements and vector 0 has {len(rows[0])}.", row=first
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused as that
        return np.array(rows, dtype=np.float64).astype(np.float32).reshape(len(rows), -1)


def _bounded(parameters: Mapping[str, str], name: str, most: int) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise InvalidRequest(f"{name}={text} is not allowed; use 1 to {most}.")
    return int(text)


def _recall(parameters: Mapping[str, str]) -> float | None:
    text = parameters.get("recall")
    if text is None:
        return None
    try:
        recall = float(text)
    except ValueError:
        recall = 0.0
    if not 0 < recall <= 1:
        raise InvalidRequest(f"recall={text} is not allowed; use a number above 0 and at most 1.")
    return recall


def _filter(parameters: Mapping[str, str]) -> Filter | None:
    text = parameters.get("filter")
    return None if text is None else parse(Filter, text.encode())


def _check_dim(asked: Parameters, dim: int) -> None:
    """Without the caller's dimension, vectors of twice the space's would pass as twice the queries."""
    if asked.dim is not None and asked.dim != str(dim):
        raise DimensionMismatch(f"the space has dimension {dim}, dim={asked.dim} was sent.", dim=dim)


def acceptable(located: Located, accept: str) -> MediaType:
    """What to answer with, of what the caller accepts.

    Raises:
        NotAcceptable: nothing fits the space's keys.
    """
    if located.reader.key_type == "int64":
        return negotiate(accept)
    try:
        return negotiate(accept, (JSON, ARROW))
    except NotAcceptable:
        if negotiate(accept).name != RAW:
            raise
        raise NotAcceptable("String keys do not fit a raw answer; accept JSON or an Arrow stream.") from None


def answer(located: Located, query: Query, accept: MediaType) -> Answer:
    """Search and encode the hits as the caller accepts them."""
    reader = located.here
    if query.keys is not None:
        result = reader.search_by_key(query.keys, query.k, query.ef, query.recall, query.filter)
    else:
        assert query.vectors is not None
        result = reader.search(query.vectors, query.k, query.ef, query.recall, query.filter)
    return encode(located, query, result, accept)


def encode(
    located: Located,
    query: Query,
    result: SearchResult,
    accept: MediaType,
    *,
    answered: NDArray[np.bool_] | None = None,
    shards: ShardsAnswered | None = None,
) -> Answer:
    """The hits as the caller accepts them; ``answered`` is false [q] where nobody knows whether there is such
    a key.
    """
    if accept.name == JSON:
        found = result.found.tolist() if answered is None else nullable(result.found, answered)
        body = _document(located, result, found, shards)
    elif accept.name == RAW:
        body = raw_hits(result, query.keys is not None, answered)
    else:
        body = encode_search_answer_arrow(
            result.keys, result.scores, result.found, version=located.version, snapshot=result.snapshot
        )
    missing = missing_of(result.found, answered)
    dtype = located.reader.storage.answers
    return Answer(body, accept.name, result.snapshot, len(result.scores), missing, dtype, shards)


def raw_hits(result: SearchResult, by_key: bool, answered: NDArray[np.bool_] | None = None) -> bytes:
    """Hits of int64 keys in raw bytes; of a search by key with a mask of which keys there are."""
    assert isinstance(result.keys, np.ndarray)  # else it is not acceptable
    found = result.found if by_key else None
    return encode_search_answer_raw(result.keys, result.scores, found, answered)


def _document(
    located: Located, result: SearchResult, found: list[bool | None], shards: ShardsAnswered | None
) -> bytes:
    rows = result.keys.tolist() if isinstance(result.keys, np.ndarray) else result.keys
    hits = [
        [{"key": key, "score": score} for key, score in zip(row, scores, strict=False) if score != -np.inf]
        for row, scores in zip(rows, result.scores.tolist(), strict=True)
    ]
    document: dict[str, Any] = {
        "reference": f"{located.version}/{located.space}",
        "snapshot": result.snapshot,
        "found": found,
        "hits": hits,
    }
    if shards is not None:
        document["shards"] = shards.model_dump()
    return orjson.dumps(document)
