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
from bedplate_services.answers import Answer
from bedplate_services.bodies import parse
from bedplate_services.directory import Located
from bedplate_services.lookups import nullable
from bedplate_store.readers import SearchResult

MAXIMUM_QUERIES = 10_000
MAXIMUM_K = 1000
MAXIMUM_HITS = 1_000_000
"""Queries times k: an answer of that many hits as JSON already takes some hundred MB while it is made."""
MAXIMUM_EF = 4096


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
    """The query of a body of media type JSON, Arrow or raw.

    The latter two take ``?k=``, ``?ef=``, ``?recall=`` and ``?filter=`` (JSON); raw bytes also ``?dim=``,
    what the caller believes to be the dimension of ``dim``.

    Raises:
        EmptyBatch, BatchTooLarge, DimensionMismatch, KeyTypeMismatch, InvalidRequest.
    """
    if media == JSON:
        query = _from_document(parse(SearchRequest, body))
    else:
        k = _bounded(parameters, "k", MAXIMUM_K) or 10
        ef = _bounded(parameters, "ef", MAXIMUM_EF)
        recall, filter = _recall(parameters), _filter(parameters)
        if media == RAW:
            _check_dim(parameters, dim)
            query = Query(decode_vectors_raw(body, dim), None, k, ef, recall, filter)
        else:
            columns = decode_search_arrow(body)
            vectors = columns.vectors
            if vectors is not None:
                vectors = np.ascontiguousarray(vectors, dtype=np.float32)
            query = Query(vectors, None if vectors is not None else columns.keys, k, ef, recall, filter)
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


def _check_dim(parameters: Mapping[str, str], dim: int) -> None:
    """Without the caller's dimension, vectors of twice the space's would pass as twice the queries."""
    given = parameters.get("dim")
    if given is not None and given != str(dim):
        raise DimensionMismatch(f"the space has dimension {dim}, dim={given} was sent.", dim=dim)


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
    return encode(located, result, accept)


def encode(
    located: Located,
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
        assert isinstance(result.keys, np.ndarray)  # else it is not acceptable
        body = encode_search_answer_raw(result.keys, result.scores)
    else:
        body = encode_search_answer_arrow(
            result.keys, result.scores, result.found, version=located.version, snapshot=result.snapshot
        )
    rows = len(result.scores)
    return Answer(body, accept.name, result.snapshot, rows, located.reader.storage.answers, shards)


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
