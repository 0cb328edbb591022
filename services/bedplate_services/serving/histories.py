"""The encoded histories of recent users, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict

from bedplate_modeling.events import History
from bedplate_modeling.runtime import HistoryCache
from bedplate_services.metrics import Metrics
from bedplate_services.serving.models import LoadedFoundation


class HistoryCaches:
    """K/V caches by (checkpoint, user), bounded in bytes. Used by the one thread that runs the models.

    A cache serves only a history it is the beginning of: the runtime compares the events, so a late
    event or a request as of the past simply encodes anew.
    """

    def __init__(self, capacity_bytes: int, metrics: Metrics) -> None:
        self._capacity_bytes = capacity_bytes
        self._metrics = metrics
        self._caches: OrderedDict[tuple[str, str], HistoryCache] = OrderedDict()
        self._kept: set[str] = set()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._caches)

    def reaches(self, model: LoadedFoundation, user: str, history: History) -> bool:
        """Whether the user's cache holds the beginning of ``history``, so that little is left to encode."""
        known = self._caches.get((model.digest, user))
        window = history.last(model.runtime.max_history)
        return known is not None and len(known.history) > 0 and known.is_prefix_of(window)

    def prefill(self, model: LoadedFoundation, user: str, history: History) -> HistoryCache:
        """The encoded ``history`` (which ends before the request), from the cache as far as it reaches."""
        key = (model.digest, user)
        known = self._caches.get(key)
        encoded = model.runtime.prefill(history, known)
        self._metrics.cache("history", "hit" if encoded is known else "miss" if known is None else "renewed")
        if encoded is known:
            self._caches.move_to_end(key)
            return encoded
        self._store(key, encoded)
        return encoded

    def keep_only(self, digests: set[str]) -> None:
        """Forget the caches of models that are no longer served."""
        if digests == self._kept:
            return
        self._kept = digests
        for key in [key for key in self._caches if key[0] not in digests]:
            self.size_bytes -= self._caches.pop(key).size_bytes

    def _store(self, key: tuple[str, str], cache: HistoryCache) -> None:
        before = self._caches.pop(key, None)
        if before is not None:
            self.size_bytes -= before.size_bytes
        if cache.size_bytes > self._capacity_bytes:
            return
        self._caches[key] = cache
        self.size_bytes += cache.size_bytes
        while self.size_bytes > self._capacity_bytes:
            self.size_bytes -= self._caches.popitem(last=False)[1].size_bytes
