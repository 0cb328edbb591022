"""Hits of several shards merged into one answer. Legend: Q queries, K results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate_store.scoring import Scores

HitKeys = NDArray[np.int64] | list[list[str | None]]


def merged(found: Sequence[tuple[HitKeys, Scores]], k: int) -> tuple[HitKeys, Scores]:
    """The best ``k`` of what was ``found``: keys and scores [Q, K_i] each, padded as a reader pads them.

    Of equal scores the smallest key comes first, so that the answer does not depend on who has which shard.
    """
    strings = any(isinstance(keys, list) for keys, _ in found)
    keys_QC: NDArray[Any] = np.concatenate([_columns(keys) for keys, _ in found], axis=1)
    scores_QC = np.concatenate([scores for _, scores in found], axis=1)
    ties_QC = keys_QC.astype(str) if strings else keys_QC
    places_QK = np.lexsort((ties_QC, -scores_QC), axis=1)[:, :k]
    keys_QK: NDArray[Any] = np.take_along_axis(keys_QC, places_QK, axis=1)
    return (keys_QK.tolist() if strings else keys_QK), np.take_along_axis(scores_QC, places_QK, axis=1)


def without_own(keys: HitKeys, scores: Scores, own: Sequence[int | str], k: int) -> tuple[HitKeys, Scores]:
    """The best ``k`` hits that are not the query's ``own`` [Q] key."""
    columns = _columns(keys)
    itself = columns == np.array(own, columns.dtype)[:, None]
    hidden = np.where(itself, -np.inf, scores).astype(np.float32)
    columns = columns.copy()
    columns[itself] = None if isinstance(keys, list) else -1
    return merged([(columns.tolist() if isinstance(keys, list) else columns, hidden)], k)


def _columns(keys: HitKeys) -> NDArray[Any]:
    """[Q, K], of texts as Python objects."""
    if not isinstance(keys, list):
        return keys
    return np.array(keys, object).reshape(len(keys), -1)
