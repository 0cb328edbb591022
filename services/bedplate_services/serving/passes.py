# arrays carry shape suffixes: x_MD
"""One pass: the TAE of a micro-batch of requests, experts' scores on them, and the log of what was served.

Legend: M candidates of a request, D width of a version's TAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate_modeling.events import History
from bedplate_modeling.requests import TaeRequest, TaeResult
from bedplate_services.serving.histories import HistoryCaches
from bedplate_services.serving.models import LoadedExpert, LoadedFoundation
from bedplate_services.serving.rankings import Ranked, Ranker, Scored
from bedplate_store import items, timelines
from bedplate_store.database import Database, ReadSession
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.timelines import TimelineColumns
from bedplate_store.times import instant

Features = Mapping[str, Mapping[str, Any]]
NEW_USERS_TOGETHER = 4


@dataclass(frozen=True)
class Asked:
    """One request, with the models that are to answer it; they stay the same to its end.

    Attributes:
        served_at_us: int64 microseconds UTC; only events strictly before it are seen.
        foundations: the versions to compute, and to log if ``log``.
        expert: the expert to rank with, pinned to one of ``foundations`` if it reads TAE.
    """

    request_id: str
    user: str
    surface: str
    candidates: Sequence[str]
    served_at_us: int
    foundations: Sequence[LoadedFoundation]
    expert: LoadedExpert | None
    log: bool

    @property
    def at_ms(self) -> int:
        """Rounded up: no event before ``served_at_us`` is hidden by the models' milliseconds."""
        return -(-self.served_at_us // 1000)


@dataclass(frozen=True)
class Served:
    """The answer to one request, as it is logged: the TAE are in the dtype they are stored in.

    Attributes:
        history_events: events of the user that the widest of the versions saw.
        tae: label -> float16 or float32 [M, D]. predictions: label -> float32 [M].
        scored: the expert's scores, and which snapshots it read.
    """

    asked: Asked
    history_events: int
    tae: dict[str, NDArray[Any]] = field(default_factory=dict)
    predictions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    scored: Scored | None = None


class Passes:
    """Answers micro-batches; called from one thread only."""

    def __init__(
        self,
        store: Database,
        log: ImpressionLog,
        caches: HistoryCaches,
        ranker: Ranker,
        served_digests: Callable[[], set[str]],
    ) -> None:
        self._store = store
        self._log = log
        self._caches = caches
        self._ranker = ranker
        self._served_digests = served_digests

    def __call__(self, batch: Sequence[Asked]) -> list[Served | Exception]:
        """Answers in order. Where a batch fails, each request is tried alone, so that it fails alone."""
        self._caches.keep_only(self._served_digests())
        try:
            return list(self._answer(batch))
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to one of the requests
            if len(batch) == 1:
                return [error]
        return [answer for asked in batch for answer in self([asked])]

    def _answer(self, batch: Sequence[Asked]) -> list[Served]:
        with self._store.read() as session:
            histories = self._histories(session, batch)
            features = self._features(session, batch)
            recent = self._ranker.histories(session, batch)
        served = [Served(asked, len(history)) for asked, history in zip(batch, histories, strict=True)]
        for foundation in _distinct(batch):
            self._compute(foundation, served, histories, features)
        ranked = self._ranker.rank([Ranked(one.asked, one.tae) for one in served], recent, features)
        served = [
            Served(one.asked, one.history_events, one.tae, one.predictions, scored)
            for one, scored in zip(served, ranked, strict=True)
        ]
        self._log_all([_record(one) for one in served if one.asked.log])
        return served

    def _histories(self, session: ReadSession, batch: Sequence[Asked]) -> list[History]:
        limit = max((one.runtime.max_history for asked in batch for one in asked.foundations), default=0)
        if limit == 0:
            return [History.empty() for _ in batch]
        wanted = list(dict.fromkeys((asked.user, asked.served_at_us) for asked in batch))
        moments = [(user, instant(at_us)) for user, at_us in wanted]
        found = map(history_of, timelines.read_many(session, moments, limit=limit))
        # One object for a page's requests on several surfaces: the models encode it once.
        histories = dict(zip(wanted, found, strict=True))
        return [histories[asked.user, asked.served_at_us] for asked in batch]

    def _features(self, session: ReadSession, batch: Sequence[Asked]) -> Features:
        """Of the candidates that some model does not know; it embeds them by their features."""
        unknown: set[str] = set()
        for asked in batch:
            for foundation in asked.foundations:
                known = foundation.runtime.knows(asked.candidates)
                unknown.update(asked.candidates[int(row)] for row in np.flatnonzero(~known))
            if asked.expert is not None:
                vocabulary = asked.expert.runtime.model.vocabulary.item_index
                unknown.update(item for item in asked.candidates if item not in vocabulary)
        return items.get_many(session, sorted(unknown)) if unknown else {}

    def _compute(
        self,
        foundation: LoadedFoundation,
        served: Sequence[Served],
        histories: Sequence[History],
        features: Features,
    ) -> None:
        """Fill in this version's TAE and predictions for everyone who asked for them."""
        rows = [row for row, one in enumerate(served) if foundation in one.asked.foundations]
        requests = [_request(served[row].asked, histories[row], features) for row in rows]
        for row, result in zip(rows, self._score(foundation, requests), strict=True):
            served[row].tae[foundation.label] = result.tae_MD.astype(foundation.tae_dtype)
            served[row].predictions[foundation.label] = result.prediction_M

    def _score(self, foundation: LoadedFoundation, requests: Sequence[TaeRequest]) -> list[TaeResult]:
        """Results in order. Several users who are new here are encoded together, which is twice as fast
        as one by one and caches nothing; everybody else is encoded into, and scored against, the caches.
        """
        runtime, results = foundation.runtime, dict[int, TaeResult]()
        new = [
            place
            for place, request in enumerate(requests)
            if not self._caches.reaches(foundation, request.user, request.history)
        ]
        if len(new) >= NEW_USERS_TOGETHER:
            found = runtime.tae([requests[place] for place in new])
            results.update(zip(new, found, strict=True))
        cached = [place for place in range(len(requests)) if place not in results]
        if cached:
            chosen = [requests[place] for place in cached]
            caches = [self._caches.prefill(foundation, one.user, one.history) for one in chosen]
            results.update(zip(cached, runtime.score(caches, chosen), strict=True))
        return [results[place] for place in range(len(requests))]

    def _log_all(self, records: list[ImpressionRecord]) -> None:
        """Before any answer leaves. A conflict logs nothing, and each request is then tried alone."""
        if records:
            self._log.append_many(records)


def history_of(columns: TimelineColumns) -> History:
    """A user's timeline as the models read it."""
    return History(columns.item, columns.action, columns.surface, columns.event_time_us // 1000)


def _distinct(batch: Sequence[Asked]) -> list[LoadedFoundation]:
    return list({one.label: one for asked in batch for one in asked.foundations}.values())


def _request(asked: Asked, history: History, features: Features) -> TaeRequest:
    return TaeRequest(asked.user, asked.surface, asked.at_ms, asked.candidates, history, features or None)


def _record(served: Served) -> ImpressionRecord:
    asked = served.asked
    return ImpressionRecord(
        request_id=asked.request_id,
        user=asked.user,
        surface=asked.surface,
        served_at_us=asked.served_at_us,
        items=list(asked.candidates),
        expert=asked.expert.label if asked.expert is not None else None,
        scores=None if served.scored is None else served.scored.scores,
        tae=served.tae,
        predictions=served.predictions,
    )
