"""The port of vector indexes. Legend: Q queries, K results, D dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedplate_store.indexes.documents import BuiltKind
from bedplate_store.indexes.selection import RowSelection
from bedplate_store.scoring import Rows, Scores


class VectorIndex(Protocol):
    """Finds the rows of a segment that are near a vector.

    **The index proposes, the segment decides**: an index holds no keys and no vectors of record, its ids are
    the segment's row numbers, and the scores it answers with are those of the segment's own vectors. So it
    may be lossy, and its scores can be compared with those of another segment. That is why one method
    is enough.
    """

    kind: BuiltKind
    parameters: Mapping[str, Any]
    rows: int

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        ef: int | None = None,
        recall: float | None = None,
        among: RowSelection | None = None,
    ) -> tuple[Scores, Rows]:
        """Scores [Q, K], best (highest) first, and rows [Q, K]; -inf and -1 where there are fewer rows.

        ``among``: only these rows; a query gets fewer than ``k`` only if fewer are selected. ``ef``: this
        effort; else ``recall``: the effort that reached it when the index was tuned; else as tuned.
        """
