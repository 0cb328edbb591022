"""Vectors and keys to measure with; the same seed gives the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ROWS_PER_CLUSTER = 500
_SPREAD = 0.5
_ROWS_AT_ONCE = 1 << 18


def gapped_keys(rows: int, seed: int = 0) -> NDArray[np.int64]:
    """int64 [rows], ascending, with gaps, so that a key is found by search and not by subtraction."""
    return np.cumsum(np.random.default_rng(seed).integers(1, 1000, rows))


def random_vectors(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 [rows, dim], uniform."""
    return np.random.default_rng(seed).random((rows, dim), np.float32)


def mapped_random_vectors(file: Path, rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 [rows, dim], uniform, in a new ``file``: they may be more than fits into memory."""
    vectors = np.memmap(file, np.float32, "w+", shape=(rows, dim))
    random = np.random.default_rng(seed)
    for start in range(0, rows, _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE]
        random.random(dtype=np.float32, out=block)
    return vectors


def clustered(
    rows: int, queries: int, dim: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors float32 [rows, dim] around common centres, and queries [queries, dim] of the same kind."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, rows // _ROWS_PER_CLUSTER), dim), np.float32)
    count = rows + queries
    vectors = centres[random.integers(0, len(centres), count)]
    vectors += _SPREAD * random.standard_normal((count, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:rows], vectors[rows:]
