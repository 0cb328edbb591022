"""What is recorded of an index, and where its file lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

INDEXES_PREFIX = "indexes/"
BuiltKind = Literal["flat", "hnsw", "ivf"]


@dataclass(frozen=True, slots=True)
class ShardDocument:
    """Rows ``[start, stop)`` of a snapshot's segment, which one process may serve without the others.

    Attributes:
        first_key: the smallest key that belongs here; None for shard 0, which takes all below shard 1.
        digest, bytes: of its index file, whose ids count from ``start``; empty and 0 for kind ``flat``.
    """

    first_key: int | str | None
    start: int
    stop: int
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """What a snapshot records of its index; the file lies under :func:`index_key`.

    ``digest`` is empty and ``bytes`` 0 for kind ``flat``, which has no file: the segment itself is scanned.
    ``recall_at_10`` and ``recall_at_100`` were measured at the tuned effort; None: too few rows.

    Attributes:
        shards: two or more, or none. With them ``digest`` is the SHA-256 over the digests of their files,
            which share one quantiser, and ``bytes`` their sum.
    """

    digest: str
    bytes: int
    kind: BuiltKind
    parameters: dict[str, Any]
    recall_at_10: float | None
    recall_at_100: float | None = None
    shards: tuple[ShardDocument, ...] = ()

    @classmethod
    def flat(cls, rows: int) -> IndexDocument:
        """A scan: nothing to store, and exact."""
        recall = 1.0 if rows > 1 else None
        return cls("", 0, "flat", {}, recall, recall)

    @property
    def has_file(self) -> bool:
        return bool(self.digest) and not self.shards

    @property
    def files(self) -> list[tuple[str, int]]:
        """Digest and bytes of each file, in the order of the shards; two may be the same."""
        parts = self.shards or (self,)
        return [(part.digest, part.bytes) for part in parts if part.digest]

    def of_shard(self, number: int) -> IndexDocument:
        """What the index of one shard is by itself; the parameters are those of all."""
        shard = self.shards[number]
        return replace(self, digest=shard.digest, bytes=shard.bytes, shards=())

    def of_shards(self, shards: Sequence[ShardDocument]) -> IndexDocument:
        """The document of all ``shards`` together."""
        parts = [f"{shard.start} {shard.stop} {shard.digest}" for shard in shards]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        size = sum(shard.bytes for shard in shards)
        return replace(self, digest=digest, bytes=size, shards=tuple(shards))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IndexDocument:
        members = {field.name: document[field.name] for field in fields(cls)}
        shards = tuple(ShardDocument(**shard) for shard in document["shards"])
        return cls(**{**members, "shards": shards})


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """A new index and its files on this machine: none where its kind has none, one for each shard."""

    document: IndexDocument
    paths: tuple[Path, ...]

    def remove(self) -> None:
        """The files go."""
        for path in self.paths:
            path.unlink(missing_ok=True)


def index_key(digest: str) -> str:
    """Key of an index file in the object store."""
    return f"{INDEXES_PREFIX}{digest}/index.faiss"
