"""The reader of a space: lookup and search over one snapshot and the writes after it.

Shapes: n keys, Q queries, K results, d the dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import VectorDtype
from bedplate.errors import InvalidRequest
from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.filters import Filter
from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store.attributes import type_name, unified
from bedplate_store.filters import FilterCache, evaluate
from bedplate_store.indexes import Bits, FlatIndex, RowSelection, VectorIndex, flat_rows, packed
from bedplate_store.keys import Keys, RawKeys, StringKeys, concatenate, parse_keys, take, to_python
from bedplate_store.overlay import UNWRITTEN, Overlay
from bedplate_store.scoring import best, some_lack
from bedplate_store.segments import Segment, VectorArray, validate_vectors
from bedplate_store.spaces import SpaceKey

K_MAX = 1000
_FIRST_ROW = np.array(0)  # an array: NumPy takes longer over a scalar


class LookupResult(NamedTuple):
    """``vectors`` [n, d] as asked for belong to the keys in order; zeros where not ``found`` [n]."""

    found: NDArray[np.bool_]
    vectors: VectorArray
    snapshot: int
    sequence: int


class SearchResult(NamedTuple):
    """The best K of each query, best first.

    Attributes:
        keys: int64 [Q, K], -1 where there are fewer; for string keys Q lists of K, None there.
        scores: float32 [Q, K], higher is nearer (inner product, or negative squared distance); -inf where
            there are fewer.
        found: [Q] whether the query's key exists; all true for a search by vector.
    """

    keys: NDArray[np.int64] | list[list[str | None]]
    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    snapshot: int
    sequence: int


class SpaceReader:
    """An immutable view of a space; may be used by several threads at once.

    Attributes:
        snapshot: number of the snapshot below, 0 where only writes exist.
        sequence: every write up to it is seen, none after it.
        filters: what filters made of rows, shared with other readers; None: a cache of its own.
        digests: of the segment and index it has mapped.
    """

    def __init__(
        self,
        *,
        space: SpaceKey,
        dim: int,
        dtype: Dtype,
        metric: Metric,
        key_type: KeyType,
        snapshot: int,
        sequence: int,
        base: Segment | None,
        index: VectorIndex | None,
        overlay: Overlay,
        digests: frozenset[str] = frozenset(),
        filters: FilterCache | None = None,
    ) -> None:
        self.space = space
        self.dim = dim
        self.dtype: Dtype = dtype
        self.storage = Storage(dtype, dim)
        self.metric: Metric = metric
        self.key_type: KeyType = key_type
        self.snapshot = snapshot
        self.sequence = sequence
        self.base = base
        self.index = FlatIndex(base, metric) if index is None and base is not None else index
        self.overlay = overlay
        self.digests = digests
        self._base_rows = 0 if base is None else base.info.rows
        self._unwritten = len(overlay) == 0
        self._living = None if overlay.base_living is None else RowSelection.of(overlay.base_living)
        self._written = flat_rows(overlay.vectors, metric, self.storage)
        self._newest = RowSelection.of(overlay.living)
        self.filters = FilterCache() if filters is None else filters
        self._scope = object()

    def lookup(self, keys: RawKeys, dtype: VectorDtype | None = None) -> LookupResult:
        """The vectors of ``keys`` [n] in ``dtype``, None: ``storage.answers``; unknown keys are no error.

        Raises:
            KeyTypeMismatch: the keys are not of the space's type.
        """
        rows = self._find(parse_keys(keys, self.key_type))
        found = rows >= _FIRST_ROW
        vectors = self.storage.decode(self._stored(rows, found), dtype)
        return LookupResult(found, vectors, self.snapshot, self.sequence)

    def search(
        self,
        vectors: Any,
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """The nearest ``k`` (1 to 1000) rows of each of ``vectors`` [Q, d].

        ``ef``: with this effort of the index; ``recall``: with the effort that reached it when the index was
        tuned; neither: as tuned. ``filter``: only rows that pass it.

        Raises:
            DimensionMismatch, NonFiniteVectors: the vectors do not fit the space.
            InvalidRequest: k is out of range, or the filter does not fit the space's attributes.
        """
        _check_k(k)
        queries = validate_vectors(vectors, self.dim).astype(np.float32, copy=False)
        return self.nearest(queries, k, ef, recall, filter)

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """As :meth:`search`, for any ``k`` and ``queries`` [Q, d] that were checked."""
        scores, rows = self._search(queries, k, ef, recall, filter)
        return self._result(scores, rows, np.ones(len(queries), np.bool_))

    def search_by_key(
        self,
        keys: RawKeys,
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """The nearest ``k`` rows of each key's own vector, without its own row; nothing for unknown keys.

        Raises:
            KeyTypeMismatch: the keys are not of the space's type.
            InvalidRequest: as for :meth:`search`.
        """
        _check_k(k)
        own = self._find(parse_keys(keys, self.key_type))
        found = own >= 0
        if found.all():
            return self._result(*self._near(own, k, ef, recall, filter), found)
        scores = np.full((len(own), k), -np.inf, np.float32)
        rows = np.full((len(own), k), -1, np.int64)
        if found.any():
            scores[found], rows[found] = self._near(own[found], k, ef, recall, filter)
        return self._result(scores, rows, found)

    def _near(
        self,
        own_Q: NDArray[np.int64],
        k: int,
        ef: int | None,
        recall: float | None,
        filter: Filter | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest rows of rows that exist, each without itself."""
        queries = self.storage.decode(self._stored(own_Q, np.ones(len(own_Q), np.bool_)), "float32")
        scores, rows = self._search(queries, k + 1, ef, recall, filter)
        others = rows != own_Q[:, None]
        others[:, -1] &= ~others.all(axis=1)  # without its own row among them, the last is one too many
        return scores[others].reshape(-1, k), rows[others].reshape(-1, k)

    # A row here is a row of the base, or the number of base rows plus a slot of the overlay.

    def _find(self, keys: Keys) -> NDArray[np.int64]:
        rows = np.full(len(keys), -1, np.int64) if self.base is None else self.base.find(keys)
        if self._unwritten:
            return rows
        slots = self.overlay.find(keys)
        newer = np.where(slots >= 0, slots + self._base_rows, -1)
        return np.where(slots == UNWRITTEN, rows, newer)

    def _stored(self, rows: NDArray[np.int64], found: NDArray[np.bool_]) -> StoredRows:
        base = self.base
        # Within bounds by construction; to say "clip" spares NumPy a buffer, and a third of the time.
        if base is not None and self._unwritten and np.count_nonzero(found) == len(found):
            return base.vectors.take(rows, axis=0, mode="clip")
        # Clipped rows belong to the overlay or to nobody, and are overwritten below.
        vectors: StoredRows = (
            self.storage.empty(len(rows))
            if base is None or self._base_rows == 0
            else base.vectors.take(rows, axis=0, mode="clip")
        )
        above = np.flatnonzero(rows >= self._base_rows)
        if len(above):
            vectors[above] = self.overlay.vectors.take(rows[above] - self._base_rows, axis=0, mode="clip")
        vectors[~found] = 0  # compressed or not, zero bytes are zeros
        return vectors

    def _search(
        self,
        queries: NDArray[np.float32],
        k: int,
        ef: int | None,
        recall: float | None,
        filter: Filter | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        living, newest = self._living, self._newest
        if filter is not None:
            living, newest = self.filters.get(self._scope, filter, lambda: self._selected(filter))
        if self.index is None or self._base_rows == 0:
            scores = np.full((len(queries), k), -np.inf, np.float32)
            rows = np.full((len(queries), k), -1, np.int64)
        else:
            scores, rows = self.index.search(queries, k, ef=ef, recall=recall, among=living)
        if newest.count == 0:
            return scores, rows
        newer, slots = self._written.search(queries, k, newest)
        slots = np.where(slots < 0, -1, slots + self._base_rows)
        return best(np.concatenate([scores, newer], axis=1), np.concatenate([rows, slots], axis=1), k)

    @cached_property
    def attributes(self) -> dict[str, str]:
        """The attributes that the rows have, and their types' names."""
        tables = [None if self.base is None else self.base.attributes]
        tables += [table for _, table in self.overlay.attributes]
        return {field.name: type_name(field.type) for field in unified(tables)}

    def _selected(self, filter: Filter) -> tuple[tuple[RowSelection | None, RowSelection], int]:
        """The living rows of the base, and of the overlay, that pass; and the memory they take."""
        types, base, selected = self.attributes, self.base, None
        if base is not None:
            # Readers of the same snapshot share this, however many writes come.
            bits = self.filters.get(base.scope, filter, lambda: _passing(filter, base, types))
            bits = bits if self._living is None else bits & self._living.bits
            selected = RowSelection(bits, base.info.rows)
        written = [np.empty(0, np.bool_)]
        written += [evaluate(filter, table, types, rows) for rows, table in self.overlay.attributes]
        newest = RowSelection.of(np.concatenate(written) & self.overlay.living)
        row_bytes = 4 * self.dim
        taken = newest.bytes_at_most(row_bytes)
        if selected is not None:
            taken += selected.bytes_at_most(row_bytes)
        return (selected, newest), taken

    def _result(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64], found: NDArray[np.bool_]
    ) -> SearchResult:
        listed: NDArray[np.int64] | list[list[str | None]]
        base = self.base
        if base is not None and not isinstance(base.keys, StringKeys) and self._unwritten:
            # The usual answer to a single query, in one call: microseconds count beside FAISS's twenty.
            plain = base.keys.take(rows, mode="clip") if self._base_rows else np.full(rows.shape, -1)
            if some_lack(rows, rows.shape[1]):
                plain[rows < 0] = -1
            return SearchResult(plain, scores, found, self.snapshot, self.sequence)
        hits = rows >= 0
        keys = self._keys(rows[hits])
        if isinstance(keys, StringKeys):
            texts = np.full(rows.shape, None, object)
            texts[hits] = to_python(keys)
            listed = texts.tolist()
        else:
            listed = np.full(rows.shape, -1, np.int64)
            listed[hits] = keys
        return SearchResult(listed, scores, found, self.snapshot, self.sequence)

    def _keys(self, rows: NDArray[np.int64]) -> Keys:
        """The keys of ``rows`` [n], all of which exist."""
        if self.base is not None and self._unwritten:
            return take(self.base.keys, rows)
        above = rows >= self._base_rows
        newer = self.overlay.keys_at(rows[above] - self._base_rows)
        if self.base is None:
            return newer
        both = concatenate([take(self.base.keys, rows[~above]), newer], self.key_type)
        # Back into the order of ``rows``: those of the base come first in ``both``.
        places = np.empty(len(rows), np.int64)
        places[np.concatenate([np.flatnonzero(~above), np.flatnonzero(above)])] = np.arange(len(rows))
        return take(both, places)


def _passing(filter: Filter, base: Segment, types: Mapping[str, str]) -> tuple[Bits, int]:
    bits = packed(evaluate(filter, base.attributes, types, base.info.rows))
    return bits, bits.nbytes


def _check_k(k: int) -> None:
    if not 1 <= k <= K_MAX:
        raise InvalidRequest(f"k is {k}: ask for 1 to {K_MAX} results.", k=k, k_max=K_MAX)
