"""An answer of the hot path, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import (
    HEADER_DIM,
    HEADER_DTYPE,
    HEADER_ROWS,
    HEADER_SHARDS,
    HEADER_SNAPSHOT,
    HEADER_VERSION,
)
from bedplate.wire.shards import ShardsAnswered


@dataclass(frozen=True, slots=True)
class Answer:
    """``rows`` is the number of keys or queries answered, of which ``missing`` are known to have no vector;
    ``dtype`` the element type of the vectors.

    ``shards``: of an answer of store nodes.
    """

    body: bytes
    media: str
    snapshot: int
    rows: int
    missing: int
    dtype: str
    shards: ShardsAnswered | None = None


def missing_of(found: NDArray[np.bool_], answered: NDArray[np.bool_] | None) -> int:
    """How many of the rows [n] are known to have no vector; ``answered`` is false where nobody knows."""
    known = len(found) if answered is None else np.count_nonzero(answered)
    return int(known - np.count_nonzero(found))


def headers_of(
    *,
    media: str,
    body_bytes: int,
    version: str,
    snapshot: int,
    dim: int,
    dtype: str,
    rows: int,
    shards: str | None,
) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; both paths send these."""
    named: dict[str, str | int] = {
        "content-type": media,
        "content-length": body_bytes,
        HEADER_VERSION: version,
        HEADER_SNAPSHOT: snapshot,
        HEADER_DIM: dim,
        HEADER_DTYPE: dtype,
        HEADER_ROWS: rows,
    }
    if shards is not None:
        named[HEADER_SHARDS] = shards
    return [(name.encode(), str(value).encode()) for name, value in named.items()]


def shards_header(answered: int, of: int) -> str:
    """How many of the shards that were needed answered."""
    return f"{answered}/{of}"
