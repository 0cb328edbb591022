"""A lookup's body to keys, and its result to bytes."""

from __future__ import annotations

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
    VectorDtype,
    answer_dtype,
    as_keys,
    decode_keys_arrow,
    decode_keys_raw,
    encode_lookup_arrow,
    encode_lookup_raw,
)
from bedplate.errors import BatchTooLarge
from bedplate.wire.shards import ShardsAnswered
from bedplate.wire.store import LookupRequest
from bedplate_services.answers import Answer, missing_of
from bedplate_services.bodies import parse
from bedplate_services.directory import Located
from bedplate_store.readers import LookupResult

MAXIMUM_KEYS = 100_000


def keys_of(body: bytes, media: str) -> Keys:
    """The keys of a request body of media type JSON, Arrow or raw.

    Raises:
        EmptyBatch, BatchTooLarge, KeyTypeMismatch, InvalidRequest.
    """
    if media == RAW:
        keys: Keys = decode_keys_raw(body)
    elif media == ARROW:
        keys = decode_keys_arrow(body)
    else:
        keys = as_keys(parse(LookupRequest, body).keys)
    if len(keys) > MAXIMUM_KEYS:
        raise BatchTooLarge(f"{len(keys)} keys were asked for; ask for {MAXIMUM_KEYS} at most.")
    return keys


def answer(located: Located, keys: Keys, accept: MediaType) -> Answer:
    """Look the keys up and encode what was found as the caller accepts it."""
    result = located.here.lookup(keys, dtype_of(located, accept))
    return encode(located, keys, result, accept)


def encode(
    located: Located,
    keys: Keys,
    result: LookupResult,
    accept: MediaType,
    *,
    answered: NDArray[np.bool_] | None = None,
    shards: ShardsAnswered | None = None,
) -> Answer:
    """What was found as the caller accepts it; ``answered`` is false [n] where nobody knows whether there is
    such a key.
    """
    reader = located.reader
    dtype = dtype_of(located, accept)
    rows, snapshot = len(result.found), result.snapshot
    missing = missing_of(result.found, answered)
    if accept.name == RAW:
        body = encode_lookup_raw(result.found, result.vectors, dtype, answered)
        return Answer(body, RAW, snapshot, rows, missing, dtype, shards)
    if accept.name == ARROW:
        body = encode_lookup_arrow(
            keys,
            result.found,
            result.vectors,
            version=located.version,
            snapshot=snapshot,
            answered_N=answered,
        )
        return Answer(body, ARROW, snapshot, rows, missing, dtype, shards)
    document: dict[str, Any] = {
        "reference": f"{located.version}/{located.space}",
        "snapshot": snapshot,
        "dim": reader.dim,
        "found": result.found if answered is None else nullable(result.found, answered),
        "vectors": result.vectors,
    }
    if shards is not None:
        document["shards"] = shards.model_dump()
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer(body, JSON, snapshot, rows, missing, reader.storage.answers, shards)


def dtype_of(located: Located, accept: MediaType) -> VectorDtype:
    """Of the vectors in an answer that is accepted as this."""
    dtype = located.reader.storage.answers
    if accept.name == RAW:
        return answer_dtype(accept, dtype)
    return "float32" if accept.name == JSON else dtype  # what JSON numbers are made from


def nullable(found: NDArray[np.bool_], answered: NDArray[np.bool_]) -> list[bool | None]:
    """None where nobody knows."""
    return [is_found if known else None for is_found, known in zip(found.tolist(), answered, strict=True)]
