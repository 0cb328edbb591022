"""Inference: target-aware embeddings, item and user vectors, and experts' scores.

A candidate's result depends on nothing but its own request, to rounding (1e-5), and is bit-equal for an
equal batch. The runtimes hold no state between calls: history caches are returned to the caller and passed
in again.

Legend: B requests, N history tokens, M candidates, D width, F feature values of an item, H heads, K width of
    a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bedplate_modeling.checkpoints import Signature, SpaceSpec, load_expert, load_foundation, signature_of
from bedplate_modeling.events import History
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.foundation import CandidateBatch, FoundationModel, HistoryBatch, ItemTokens
from bedplate_modeling.hstu import HistoryKeys, LayerKeys
from bedplate_modeling.requests import TaeRequest, TaeResult, UserRequest

__all__ = [
    "ExpertRows",
    "ExpertRuntime",
    "FoundationRuntime",
    "HistoryCache",
    "TaeRequest",
    "TaeResult",
    "UserRequest",
]

TOKENS_PER_PASS = 16_384
ITEMS_PER_PASS = 65_536
ROWS_PER_PASS = 8_192


@dataclass(frozen=True)
class HistoryCache:
    """One user's encoded history: per layer k and v, float32 [1, H, N, K]. Immutable; extending makes a new
    one."""

    history: History
    keys: HistoryKeys

    @property
    def size_bytes(self) -> int:
        """Memory of the tensors, for the caller's eviction."""
        tensors = [
            self.keys.times_BN,
            *(t for layer in self.keys.layers for t in (layer.k_BHNK, layer.v_BHNK)),
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def is_prefix_of(self, history: History) -> bool:
        """Whether the cached events are the first ones of ``history``."""
        size = len(self.history)
        return (
            size <= len(history)
            and np.array_equal(self.history.event_time_ms, history.event_time_ms[:size])
            and tuple(self.history.items) == tuple(history.items[:size])
            and tuple(self.history.actions) == tuple(history.actions[:size])
            and tuple(self.history.surfaces) == tuple(history.surfaces[:size])
        )


class FoundationRuntime:
    """A loaded foundation checkpoint.

    Attributes:
        signature, spaces: as in the checkpoint; spaces are "tae", "item" and "user".
        max_history: events of a user worth fetching; older ones are never seen.
        dim: D, the width of all three spaces.
    """

    def __init__(self, model: FoundationModel, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.signature: Signature = signature_of(model)
        self.spaces: Mapping[str, SpaceSpec] = self.signature.spaces
        self.max_history = model.config.max_history
        self.dim = model.config.dim

    @classmethod
    def load(cls, directory: str | Path, device: str | torch.device = "cpu") -> Self:
        """Raises CheckpointInvalid."""
        return cls(load_foundation(directory), device)

    def knows(self, items: Sequence[str]) -> NDArray[np.bool_]:
        """bool [n]: whether each item is in the vocabulary; others are embedded from their features alone."""
        index = self.model.vocabulary.item_index
        return np.fromiter((key in index for key in items), np.bool_, len(items))

    @torch.inference_mode()
    def tae(self, requests: Sequence[TaeRequest]) -> list[TaeResult]:
        """One result per request, in order; several requests share a pass, padded to the longest of them.

        Requests at the same time that hold the same ``History`` object share its encoding: candidates never
        see each other, so they may stand in one row.
        """
        slates = _slates(requests)
        histories = [self._visible(requests[slate.places[0]].history, slate.at_ms) for slate in slates]
        results: dict[int, TaeResult] = {}
        sizes = [len(h) + len(s.candidates) for h, s in zip(histories, slates, strict=True)]
        for rows in _passes(sizes):
            chosen = [histories[row] for row in rows]
            keys = self.model.prefill(self._history_batch(chosen))
            visible = [len(history) for history in chosen]
            results.update(self._score([slates[row] for row in rows], visible, keys))
        return [results[place] for place in range(len(requests))]

    @torch.inference_mode()
    def prefill(self, history: History, cache: HistoryCache | None = None) -> HistoryCache:
        """Encodes the last ``max_history`` events, or only those that follow ``cache`` if it is a prefix of
        them.

        ``history`` must end before the requests that will be scored against it; later events are never seen,
        but take up places of the window.
        """
        window = history.last(self.max_history)
        if cache is None or len(cache.history) == 0 or not cache.is_prefix_of(window):
            return HistoryCache(window, self.model.prefill(self._history_batch([window])))
        if len(cache.history) == len(window):
            return cache
        fresh = window.last(len(window) - len(cache.history))
        return HistoryCache(window, self.model.prefill(self._history_batch([fresh]), cache.keys))

    @torch.inference_mode()
    def score(self, caches: Sequence[HistoryCache], requests: Sequence[TaeRequest]) -> list[TaeResult]:
        """Like ``tae``, against the requests' cached histories; the requests' own ``history`` is not read."""
        slates = [_slate(requests, [place]) for place in range(len(requests))]
        results: dict[int, TaeResult] = {}
        sizes = [len(c.history) + len(s.candidates) for c, s in zip(caches, slates, strict=True)]
        for rows in _passes(sizes):
            chosen = [caches[row] for row in rows]
            visible = [
                int(np.searchsorted(caches[row].history.event_time_ms, slates[row].at_ms, side="left"))
                for row in rows
            ]
            results.update(self._score([slates[row] for row in rows], visible, _stack(chosen)))
        return [results[place] for place in range(len(requests))]

    @torch.inference_mode()
    def embed_items(
        self, keys: Sequence[str], features: Mapping[str, Mapping[str, Any]] | None = None
    ) -> NDArray[np.float32]:
        """float32 [n, D], unit length; ``features`` (item -> feature -> values) is read for unknown items
        only."""
        out = np.zeros((len(keys), self.dim), np.float32)
        for start in range(0, len(keys), ITEMS_PER_PASS):
            part = keys[start : start + ITEMS_PER_PASS]
            given = [(features or {}).get(key) for key in part]
            tokens = self._item_tokens([part], [given], len(part))
            out[start : start + len(part)] = self.model.item_vectors(tokens)[0].cpu().numpy()
        return out

    @torch.inference_mode()
    def embed_users(self, requests: Sequence[UserRequest]) -> NDArray[np.float32]:
        """float32 [n, D], unit length: each user as of ``at_ms``; user . item ranks items for the user."""
        histories = [self._visible(request.history, request.at_ms) for request in requests]
        out = np.zeros((len(requests), self.dim), np.float32)
        for places in _passes([len(history) + 1 for history in histories]):
            chosen = [histories[place] for place in places]
            times = [[requests[place].at_ms // 1000] for place in places]
            visible = [[len(history)] for history in chosen]
            keys = self.model.prefill(self._history_batch(chosen))
            vectors = self.model.users(self._ints(times), self._ints(visible), keys)
            out[places] = vectors[:, 0].cpu().numpy()
        return out

    def _visible(self, history: History, at_ms: int) -> History:
        return history.before(at_ms).last(self.max_history)

    def _score(
        self, slates: Sequence[_Slate], visible: Sequence[int], keys: HistoryKeys
    ) -> Iterator[tuple[int, TaeResult]]:
        """The place and the result of every request of the slates."""
        tae_BMD = self.model.tae(self._candidate_batch(slates, visible), keys)
        prediction_BM = torch.sigmoid(self.model.logits(tae_BMD).main).cpu().numpy()
        values_BMD = tae_BMD.cpu().numpy()
        for row, slate in enumerate(slates):
            for place, start, stop in zip(slate.places, slate.bounds, slate.bounds[1:], strict=False):
                yield (
                    place,
                    TaeResult(values_BMD[row, start:stop].copy(), prediction_BM[row, start:stop].copy()),
                )

    def _ints(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=self.device)

    def _history_batch(self, histories: Sequence[History]) -> HistoryBatch:
        vocabulary = self.model.vocabulary
        width = max(len(history) for history in histories)
        items_BN, actions_BN, surfaces_BN, times_BN = np.zeros((4, len(histories), width), np.int64)
        for row, history in enumerate(histories):
            size = len(history)
            items_BN[row, :size] = [vocabulary.item_index.get(key, 0) for key in history.items]
            actions_BN[row, :size] = [vocabulary.action_index.get(key, 0) for key in history.actions]
            surfaces_BN[row, :size] = [vocabulary.surface_index.get(key, 0) for key in history.surfaces]
            times_BN[row, :size] = history.event_time_ms // 1000
        items = self.model.item_tokens(self._ints(items_BN))
        return HistoryBatch(items, self._ints(actions_BN), self._ints(surfaces_BN), self._ints(times_BN))

    def _candidate_batch(self, slates: Sequence[_Slate], visible: Sequence[int]) -> CandidateBatch:
        width = max(len(slate.candidates) for slate in slates)
        index = self.model.vocabulary.surface_index
        surfaces_BM = np.zeros((len(slates), width), np.int64)
        for row, slate in enumerate(slates):
            surfaces_BM[row, : len(slate.surfaces)] = [index.get(name, 0) for name in slate.surfaces]
        times_B1 = self._ints([[slate.at_ms // 1000] for slate in slates])
        visible_B1 = self._ints(visible)[:, None]
        return CandidateBatch(
            self._item_tokens([s.candidates for s in slates], [s.features for s in slates], width),
            self._ints(surfaces_BM),
            times_B1.expand(-1, width),
            visible_B1.expand(-1, width),
        )

    def _item_tokens(
        self,
        keys: Sequence[Sequence[str]],
        features: Sequence[Sequence[Mapping[str, Any] | None]],
        width: int,
    ) -> ItemTokens:
        vocabulary = self.model.vocabulary
        items_BM = np.zeros((len(keys), width), np.int64)
        for row, names in enumerate(keys):
            items_BM[row, : len(names)] = [vocabulary.item_index.get(name, 0) for name in names]
        tokens = self.model.item_tokens(self._ints(items_BM))
        for row, known in enumerate(features):
            for place in np.flatnonzero(items_BM[row, : len(known)] == 0).tolist():
                given = known[place]
                if given is not None:
                    indices = vocabulary.feature_row(given, tokens.features_BTF.shape[-1])
                    tokens.features_BTF[row, place] = self._ints(indices)
        return tokens


@dataclass(frozen=True)
class _Slate:
    """Candidates that are scored in one row, against one history: of one request, or of several.

    Attributes:
        places: the requests. bounds: where each one's candidates begin, and where the last one's end.
        features: of each candidate, as its own request gives them.
    """

    places: Sequence[int]
    bounds: Sequence[int]
    at_ms: int
    candidates: Sequence[str]
    surfaces: Sequence[str]
    features: Sequence[Mapping[str, Any] | None]


def _slates(requests: Sequence[TaeRequest]) -> list[_Slate]:
    """Requests that hold the same history object, at the same time, together."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault((id(request.history), request.at_ms), []).append(place)
    return [_slate(requests, shared) for shared in places.values()]


def _slate(requests: Sequence[TaeRequest], places: Sequence[int]) -> _Slate:
    chosen = [requests[place] for place in places]
    counts = [len(request.candidates) for request in chosen]
    return _Slate(
        places,
        [0, *np.cumsum(counts).tolist()],
        chosen[0].at_ms,
        [item for request in chosen for item in request.candidates],
        [request.surface for request in chosen for _ in request.candidates],
        [(r.candidate_features or {}).get(item) for r in chosen for item in r.candidates],
    )


def _passes(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Places of requests of like size, at most TOKENS_PER_PASS padded tokens together."""
    order = np.argsort(np.asarray(sizes, np.int64), kind="stable").tolist()
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * sizes[order[stop]] <= TOKENS_PER_PASS:
            stop += 1
        yield order[start:stop]
        start = stop


def _stack(caches: Sequence[HistoryCache]) -> HistoryKeys:
    """Caches of several users as one batch, padded at the end."""
    width = max(len(cache.history) for cache in caches)

    def padded(tensor: Tensor, dimension: int) -> Tensor:
        missing = width - tensor.shape[dimension]
        pads = [0, 0] * (tensor.ndim - dimension - 1) + [0, missing]
        return torch.nn.functional.pad(tensor, pads)

    layers = tuple(
        LayerKeys(
            torch.cat([padded(cache.keys.layers[depth].k_BHNK, 2) for cache in caches]),
            torch.cat([padded(cache.keys.layers[depth].v_BHNK, 2) for cache in caches]),
        )
        for depth in range(len(caches[0].keys.layers))
    )
    return HistoryKeys(layers, torch.cat([padded(cache.keys.times_BN, 1) for cache in caches]))


class ExpertRuntime:
    """A loaded expert checkpoint. ``config`` says what it is pinned to and which inputs it reads."""

    def __init__(self, model: ExpertModel) -> None:
        self.model = model.eval()
        self.config = model.config
        self.signature: Signature = signature_of(model)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Raises CheckpointInvalid."""
        return cls(load_expert(directory))

    @torch.inference_mode()
    def score(self, rows: ExpertRows) -> NDArray[np.float32]:
        """float32 [N]: probability of the label for each row; raises ExpertRowsInvalid."""
        if len(rows) == 0:
            return np.zeros(0, np.float32)
        encoded = self.model.encode(rows)
        parts = torch.split(torch.arange(len(rows)), ROWS_PER_PASS)
        return torch.cat([torch.sigmoid(self.model(encoded.rows(part))) for part in parts]).numpy()
