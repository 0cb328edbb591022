"""An answer of the hot path, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass

from bedplate.codecs import HEADER_DIM, HEADER_DTYPE, HEADER_ROWS, HEADER_SNAPSHOT, HEADER_VERSION
from bedplate.wire.shards import ShardsAnswered


@dataclass(frozen=True, slots=True)
class Answer:
    """``rows`` is the number of keys or queries answered; ``dtype`` the element type of the vectors.

    ``shards``: of an answer of store nodes.
    """

    body: bytes
    media: str
    snapshot: int
    rows: int
    dtype: str
    shards: ShardsAnswered | None = None


def headers_of(
    *, media: str, body_bytes: int, version: str, snapshot: int, dim: int, dtype: str, rows: int
) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; both paths send these."""
    named = {
        "content-type": media,
        "content-length": body_bytes,
        HEADER_VERSION: version,
        HEADER_SNAPSHOT: snapshot,
        HEADER_DIM: dim,
        HEADER_DTYPE: dtype,
        HEADER_ROWS: rows,
    }
    return [(name.encode(), str(value).encode()) for name, value in named.items()]
