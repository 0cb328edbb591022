"""What a lookup and a search answer. Shape suffixes: N rows, Q queries, K hits, D dimension."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import (
    HEADER_DIM,
    HEADER_DTYPE,
    HEADER_ROWS,
    HEADER_SHARDS,
    HEADER_SNAPSHOT,
    HEADER_VERSION,
    RAW,
    HitKeys,
    Vectors,
    content_type,
    decode_lookup_raw,
    decode_search_answer_arrow,
    decode_search_answer_raw,
    found_raw,
    unanswered_raw,
)
from bedplate.errors import InternalError


@dataclass(frozen=True, slots=True)
class Lookup:
    """``vectors`` [N, D] belong to the keys in their order; where ``found`` [N] is false they are zeros.

    Attributes:
        version: the version that answered, as a number: ``core@7``.
        snapshot: the snapshot's number; 0 where nothing but upserts exists yet.
        unanswered: [N], where store nodes answered and ``allow_partial`` was given: keys of shards that did
            not answer, so that nobody knows whether they exist. None: every key was looked up.
        shards: where store nodes answered, how many of the shards needed did, and how many were needed.
    """

    found: NDArray[np.bool_]
    vectors: Vectors
    version: str
    snapshot: int
    unanswered: NDArray[np.bool_] | None = None
    shards: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """One row for each query, best hit first.

    Attributes:
        keys: [Q][K], int64 array padded with -1, or lists of strings padded with None.
        scores: float32 [Q, K], -inf where there was no further hit.
        found: [Q], for a search by key: whether the key exists; for a search by vector all true.
        shards: where store nodes answered, how many of the shards needed did, and how many were needed.
    """

    keys: HitKeys
    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    version: str
    snapshot: int
    shards: tuple[int, int] | None = None


def read_lookup(response: httpx.Response) -> Lookup:
    """The answer to a lookup that asked for raw bytes.

    Raises:
        InternalError: a header is missing or garbled, or the body has not the length they tell.
    """
    rows, snapshot, version = _answered_by(response)
    try:
        dim, dtype = int(response.headers[HEADER_DIM]), response.headers[HEADER_DTYPE]
    except (KeyError, ValueError) as error:
        raise InternalError(
            f"The answer to a lookup lacks or garbles a header ({error}); is a proxy stripping x-bedplate-*?"
        ) from error
    found, vectors = decode_lookup_raw(response.content, rows=rows, dim=dim, dtype=dtype)
    shards = _shards(response)
    whole = shards is None or shards[0] == shards[1]
    unanswered = None if whole else unanswered_raw(response.content, rows=rows)
    return Lookup(found, vectors, version, snapshot, unanswered, shards)


def read_search(response: httpx.Response, k: int, *, by_key: bool = False) -> Search:
    """The answer to a search for ``k`` hits a query, in raw bytes or as Arrow.

    Raises:
        InternalError: a header is missing or garbled, or the body has not the length they tell.
        InvalidRequest: the Arrow stream is no answer to a search.
    """
    if content_type(response.headers.get("content-type")) != RAW:
        columns = decode_search_answer_arrow(response.content)
        version, snapshot = columns.version, columns.snapshot
        return Search(columns.keys, columns.scores, columns.found, version, snapshot, _shards(response))
    rows, snapshot, version = _answered_by(response)
    body = response.content
    keys, scores = decode_search_answer_raw(body, queries=rows, k=k, by_key=by_key)
    found = found_raw(body, rows=rows) if by_key else np.ones(rows, np.bool_)
    return Search(keys, scores, found, version, snapshot, _shards(response))


def _shards(response: httpx.Response) -> tuple[int, int] | None:
    answered, _, needed = response.headers.get(HEADER_SHARDS, "").partition("/")
    return (int(answered), int(needed)) if answered.isdigit() and needed.isdigit() else None


def _answered_by(response: httpx.Response) -> tuple[int, int, str]:
    """Rows, snapshot and version, as the headers tell.

    Raises:
        InternalError: one is missing or garbled.
    """
    headers = response.headers
    try:
        return int(headers[HEADER_ROWS]), int(headers[HEADER_SNAPSHOT]), headers[HEADER_VERSION]
    except (KeyError, ValueError) as error:
        raise InternalError(
            f"The answer lacks or garbles a header ({error}); is a proxy stripping x-bedplate-*?"
        ) from error
