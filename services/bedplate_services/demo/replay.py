"""Replaying a part of the timeline as requests: TAE are logged, then what the user did comes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate import Client
from bedplate.wire.serving import RankAnswer, RankRequest, TaeRequest
from bedplate_services.demo.worlds import Page, World, cut_pages, waves

REQUESTS_AT_ONCE = 128
PAGES_AT_ONCE = 10_000
MICROSECONDS = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Request:
    """One request of a page: the candidates of one surface, and the rows of the events that followed."""

    request_id: str
    user: str
    surface: str
    page: Page
    candidates: list[str]
    rows: list[int]

    def tae(self, versions: list[str]) -> TaeRequest:
        return TaeRequest(
            user=self.user,
            surface=self.surface,
            candidates=self.candidates,
            at=self.page.at,
            versions=versions,
            request_id=self.request_id,
            include_vectors=False,
        )

    def rank(self) -> RankRequest:
        return RankRequest(
            user=self.user, candidates=self.candidates, at=self.page.at, request_id=self.request_id
        )


class Replay:
    """Sends one window of a world through the platform, page after page.

    Args:
        client: the platform's own client (it may write events and outcomes of every surface).
        surfaces: surface -> the client of the team that owns it; ranks and outcomes go through it.
        prefix: begins every request id, so that two windows never share one.
        versions: whose TAE the training sets will need. They are named: "every active version" would be those
            the inference service knew of when it last looked, a moment ago.
    """

    def __init__(
        self,
        client: Client,
        surfaces: Mapping[str, Client],
        world: World,
        prefix: str,
        versions: Sequence[str],
    ) -> None:
        self.client, self.surfaces, self.world, self.prefix = client, surfaces, world, prefix
        self.versions = list(versions)
        self.impressions = 0
        self.requests = 0
        self.ranked: dict[str, RankAnswer] = {}

    def run(self, start: int, end: int, advance: Callable[[int], None], *, rank_every: int = 0) -> None:
        """Replay the events with start <= event_time < end; every ``rank_every``-th request is a ranking."""
        events = self.world.window(start, end)
        columns = _Columns.of(events)
        for wave in waves(cut_pages(events), PAGES_AT_ONCE):
            requests = [request for page in wave for request in self._requests(page, columns)]
            self._ask(requests, rank_every)
            rows = np.concatenate([page.rows for page in wave])
            self.client.events.send(events.take(pa.array(np.sort(rows))))
            self._report(requests, columns)
            self.impressions += sum(len(request.candidates) for request in requests)
            advance(len(rows))

    def _requests(self, page: Page, columns: _Columns) -> list[Request]:
        by_surface: dict[str, dict[str, int]] = {}
        for row in page.rows.tolist():
            by_surface.setdefault(columns.surface[row], {}).setdefault(columns.item[row], row)
        return [
            Request(
                f"{self.prefix}-{page.number}-{surface}",
                page.user,
                surface,
                page,
                list(rows),
                list(rows.values()),
            )
            for surface, rows in sorted(by_surface.items())
        ]

    def _ask(self, requests: list[Request], rank_every: int) -> None:
        plain: list[TaeRequest] = []
        for request in requests:
            self.requests += 1
            if rank_every and self.requests % rank_every == 0:
                asked = request.rank()
                self.ranked[request.request_id] = self.surfaces[request.surface].rank(request.surface, asked)
            else:
                plain.append(request.tae(self.versions))
        for first in range(0, len(plain), REQUESTS_AT_ONCE):
            self.client.tae.batch(plain[first : first + REQUESTS_AT_ONCE])

    def _report(self, requests: list[Request], columns: _Columns) -> None:
        by_surface: dict[str, list[Request]] = {}
        for request in requests:
            by_surface.setdefault(request.surface, []).append(request)
        for surface, shown in by_surface.items():
            rows = [row for request in shown for row in request.rows]
            outcomes = pa.table(
                {
                    "request_id": [request.request_id for request in shown for _ in request.rows],
                    "item": [columns.item[row] for row in rows],
                    "label": pa.array([columns.label[row] for row in rows], pa.float32()),
                    "outcome_time": pa.array([columns.time[row] for row in rows], MICROSECONDS),
                }
            )
            labelled = outcomes.filter(pc.is_valid(outcomes["label"]))
            if len(labelled):
                self.surfaces[surface].outcomes.record(surface, labelled)


@dataclass(frozen=True)
class _Columns:
    item: list[str]
    surface: list[str]
    label: list[Any]
    time: list[int]

    @classmethod
    def of(cls, events: pa.Table) -> _Columns:
        return cls(
            events["item"].to_pylist(),
            events["surface"].to_pylist(),
            events["label"].to_pylist(),
            events["event_time"].cast(pa.int64()).to_pylist(),
        )
