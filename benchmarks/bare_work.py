"""What a bare application does for an answer, and nothing else: the least that a lookup or a search takes.

Each is described by a JSON document in a file, whose path is the path of the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bare_faiss import BareIndex, SelectedRows

Answer = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Rows:
    """Rows [n, dim] of a file by their numbers, int64 [n]: what is left of a lookup without its keys."""

    vectors: str
    dtype: str
    dim: int

    def answers(self) -> Answer:
        vectors = _mapped(self.vectors, self.dtype, self.dim)
        return lambda asked: vectors[np.frombuffer(asked, np.int64)].tobytes()


@dataclass(frozen=True)
class Lookup:
    """The same by their keys, int64 [n], found by ``searchsorted``; and which keys there are, bool [n]."""

    vectors: str
    dtype: str
    dim: int
    keys: str

    def answers(self) -> Answer:
        vectors, keys = _mapped(self.vectors, self.dtype, self.dim), np.load(self.keys)

        def answer(asked: bytes) -> bytes:
            wanted = np.frombuffer(asked, np.int64)
            rows = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
            found = keys[rows] == wanted
            return bytes(vectors[rows]) + bytes(found)

        return answer


@dataclass(frozen=True)
class Search:
    """FAISS on the platform's own index file: keys int64 [Q, k] and scores float32 [Q, k] of queries
    float32 [Q, dim], or of rows whose keys, int64 [Q], are asked with.

    Attributes:
        selected: a file with the mask bool [R] of the rows that pass a filter.
        threads: of FAISS.
    """

    index: str
    index_kind: str
    vectors: str
    dim: int
    keys: str
    k: int
    ef: int
    refine_factor: float | None
    selected: str | None
    by_key: bool
    threads: int

    def answers(self) -> Answer:
        vectors, keys = _mapped(self.vectors, "float32", self.dim), np.load(self.keys)
        index = BareIndex(Path(self.index), self.index_kind, vectors)
        selected = None if self.selected is None else SelectedRows(np.load(self.selected))
        effort = index.effort(self.ef, self.refine_factor, selected)

        def answer(asked: bytes) -> bytes:
            if self.by_key:
                queries = vectors[keys.searchsorted(np.frombuffer(asked, np.int64))]
            else:
                queries = np.frombuffer(asked, np.float32).reshape(-1, self.dim)
            scores, rows = index.scored(queries, self.k + self.by_key, effort, self.threads)
            return bytes(keys[rows[:, -self.k :]]) + bytes(scores[:, -self.k :])

        return answer


Work = Rows | Lookup | Search
_KINDS: dict[str, Callable[..., Work]] = {kind.__name__: kind for kind in (Rows, Lookup, Search)}


def describe(work: Work, file: Path) -> str:
    """The path of requests for ``work``, which is described in a new ``file``."""
    file.write_text(json.dumps({"kind": type(work).__name__, **asdict(work)}))
    return str(file)


def described(path: str) -> Answer:
    """How requests to ``path`` are answered."""
    document: dict[str, Any] = json.loads(Path(path).read_text())
    return _KINDS[document.pop("kind")](**document).answers()


def _mapped(file: str, dtype: str, dim: int) -> NDArray[Any]:
    return np.asarray(np.memmap(file, np.dtype(dtype), "r").reshape(-1, dim))
