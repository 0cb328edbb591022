"""A lookup's body to keys, and its result to bytes."""

from __future__ import annotations

import orjson

from bedplate.codecs import (
    ARROW,
    JSON,
    RAW,
    Keys,
    MediaType,
    answer_dtype,
    as_keys,
    decode_keys_arrow,
    decode_keys_raw,
    encode_lookup_arrow,
    encode_lookup_raw,
)
from bedplate.errors import BatchTooLarge
from bedplate.wire.store import LookupRequest
from bedplate_services.answers import Answer
from bedplate_services.bodies import parse
from bedplate_services.directory import Located

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
    reader = located.reader
    dtype = reader.storage.answers
    if accept.name == RAW:
        dtype = answer_dtype(accept, dtype)
    elif accept.name == JSON:
        dtype = "float32"  # what JSON numbers are made from
    result = reader.lookup(keys, dtype)
    rows, snapshot = len(result.found), result.snapshot
    if accept.name == RAW:
        body = encode_lookup_raw(result.found, result.vectors, dtype)
        return Answer(body, RAW, snapshot, rows, dtype)
    if accept.name == ARROW:
        body = encode_lookup_arrow(
            keys, result.found, result.vectors, version=located.version, snapshot=snapshot
        )
        return Answer(body, ARROW, snapshot, rows, dtype)
    document = {
        "reference": f"{located.version}/{located.space}",
        "snapshot": snapshot,
        "dim": reader.dim,
        "found": result.found,
        "vectors": result.vectors,
    }
    return Answer(
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        JSON,
        snapshot,
        rows,
        reader.storage.answers,
    )
