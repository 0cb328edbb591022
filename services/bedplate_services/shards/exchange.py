"""What the API and a store node say to each other. It is no public interface: both are of one version.

``POST /internal/shards/lookup?space=core@7/item&snapshot=3&sequence=12&shards=0,4`` with keys, and ``search``
with vectors and ``k``, perhaps ``ef``, ``recall`` and ``filter``. Bodies are those of the public routes:
int64 keys and float32 vectors raw, string keys as Arrow. A node answers for exactly that state, or says why
not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import (
    Keys,
    VectorDtype,
    decode_keys_arrow,
    decode_keys_raw,
    decode_search_answer_arrow,
    decode_search_answer_raw,
    encode_keys_arrow,
    encode_keys_raw,
    encode_search_answer_arrow,
    encode_search_answer_raw,
)
from bedplate.errors import InvalidRequest
from bedplate.wire.filters import Filter
from bedplate.wire.registry import KeyType
from bedplate_services.bodies import parse
from bedplate_store.shard_hits import HitKeys
from bedplate_store.spaces import SpaceKey

PREFIX = "/internal/shards/"
REQUEST_ID = b"x-request-id"
"""The header with the ids of the requests that a message is for, joined by commas; it is the last one."""
REQUESTS_MAX = 64
"""Of one message: their ids are in its head."""
REQUEST_IDS = re.compile(rb"^[A-Za-z0-9._:,-]{1,4160}$")
MISSING, PASSED = 409, 412
"""Status where a shard is not here; where the state is in the past, and the body is the newest sequence."""


@dataclass(frozen=True, slots=True)
class ShardAsk:
    """Some shards of a space at one state, as a request names them."""

    space: SpaceKey
    snapshot: int
    sequence: int
    shards: tuple[int, ...]

    def target(self, verb: str, more: str = "") -> str:
        """The path and query of a request; ``more`` of the latter, if any, begins with ``&``."""
        shards = ",".join(map(str, self.shards))
        return (
            f"{PREFIX}{verb}?space={quote(str(self.space))}&snapshot={self.snapshot}"
            f"&sequence={self.sequence}&shards={shards}{more}"
        )

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> ShardAsk:
        """Raises InvalidRequest."""
        try:
            shards = tuple(int(text) for text in query["shards"].split(","))
            return cls(SpaceKey.parse(query["space"]), int(query["snapshot"]), int(query["sequence"]), shards)
        except (KeyError, ValueError) as error:
            raise InvalidRequest(f"The query names no state and shards of a space ({error}).") from error


@dataclass(frozen=True, slots=True)
class SearchSetting:
    """What of a search stands in the query."""

    k: int
    ef: int | None
    recall: float | None
    filter: Filter | None

    def text(self) -> str:
        """Behind the state and the shards of a request's query."""
        given = {"k": self.k, "ef": self.ef, "recall": self.recall}
        text = "".join(f"&{name}={value}" for name, value in given.items() if value is not None)
        if self.filter is not None:
            text += f"&filter={quote(self.filter.text, safe='')}"
        return text

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> SearchSetting:
        """Raises InvalidRequest."""
        try:
            return cls(
                int(query["k"]),
                int(query["ef"]) if "ef" in query else None,
                float(query["recall"]) if "recall" in query else None,
                parse(Filter, query["filter"].encode()) if "filter" in query else None,
            )
        except (KeyError, ValueError) as error:
            raise InvalidRequest(f"The query holds no parameters of a search ({error}).") from error


def dtype_of(query: Mapping[str, str]) -> VectorDtype:
    """Of the vectors that a lookup is answered with."""
    return "float16" if query.get("dtype") == "float16" else "float32"


def encode_keys(keys: Keys) -> bytes:
    return encode_keys_raw(keys) if isinstance(keys, np.ndarray) else encode_keys_arrow(keys)


def decode_keys(body: bytes, key_type: KeyType) -> Keys:
    return decode_keys_raw(body) if key_type == "int64" else decode_keys_arrow(body)


def encode_hits(keys: HitKeys, scores: NDArray[np.float32]) -> bytes:
    if isinstance(keys, np.ndarray):
        return encode_search_answer_raw(keys, scores)
    found = np.ones(len(scores), np.bool_)
    return encode_search_answer_arrow(keys, scores, found, version="", snapshot=0)


def decode_hits(body: bytes, key_type: KeyType, queries: int, k: int) -> tuple[HitKeys, NDArray[np.float32]]:
    if key_type == "int64":
        return decode_search_answer_raw(body, queries=queries, k=k)
    columns = decode_search_answer_arrow(body)
    return columns.keys, columns.scores


def select(keys: Keys, places: NDArray[np.int64]) -> Keys:
    """``keys`` at ``places``."""
    return keys[places] if isinstance(keys, np.ndarray) else [keys[place] for place in places]


def own_keys(keys: Keys) -> Sequence[int | str]:
    return keys.tolist() if isinstance(keys, np.ndarray) else keys
