"""What is recorded of an index, and where its file lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

INDEXES_PREFIX = "indexes/"
BuiltKind = Literal["flat", "hnsw", "ivf"]


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """What a snapshot records of its index; the file lies under :func:`index_key`.

    ``digest`` is empty and ``bytes`` 0 for kind ``flat``, which has no file: the segment itself is scanned.
    ``recall_at_10`` and ``recall_at_100`` were measured at the tuned effort; None: too few rows.
    """

    digest: str
    bytes: int
    kind: BuiltKind
    parameters: dict[str, Any]
    recall_at_10: float | None
    recall_at_100: float | None = None

    @classmethod
    def flat(cls, rows: int) -> IndexDocument:
        """A scan: nothing to store, and exact."""
        recall = 1.0 if rows > 1 else None
        return cls("", 0, "flat", {}, recall, recall)

    @property
    def has_file(self) -> bool:
        return bool(self.digest)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IndexDocument:
        return cls(**{field.name: document[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """A new index and its file on this machine; ``path`` None: its kind has no file."""

    document: IndexDocument
    path: Path | None


def index_key(digest: str) -> str:
    """Key of an index file in the object store."""
    return f"{INDEXES_PREFIX}{digest}/index.faiss"
