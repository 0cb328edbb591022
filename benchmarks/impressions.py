"""A world's impressions as experts read them: the demo's requests, with TAE and vectors computed in process.

The platform logs and stores the same numbers; here they stay float32, so that any storage can be tried.
Shapes: N candidates, R requests, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate_modeling.events import Events
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.requests import TaeRequest, UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_services.demo.evaluation import HISTORY_LENGTH
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.worlds import World, cut_pages


@dataclass
class _Asked:
    """What one surface was asked for: a request, and the rows of the window that it showed."""

    requests: list[TaeRequest]
    shown: list[NDArray[np.int64]]


class Impressions:
    """Reads windows of a world through one foundation model.

    Args:
        embedded_at_ms: user vectors are of that time, as an embed job leaves them; who came later has none.
    """

    def __init__(self, world: World, runtime: FoundationRuntime, embedded_at_ms: int) -> None:
        self.world, self.runtime, self.embedded_at_ms = world, runtime, embedded_at_ms
        self.events = events_of(world.events)
        self._places = {item: place for place, item in enumerate(world.items)}
        self._items_ID = runtime.embed_items(list(world.items), world.items)
        self._here: dict[str, Events] = {}

    def rows(self, start: int, end: int, surfaces: Sequence[str]) -> dict[str, ExpertRows]:
        """Labelled impressions of a window (microseconds), by surface."""
        window = self.world.window(start, end)
        window = window.filter(pc.is_valid(window["label"]))
        asked = self._ask(window, surfaces)
        return {surface: self._rows_of(surface, window, asked[surface]) for surface in surfaces}

    def _ask(self, window: pa.Table, surfaces: Sequence[str]) -> dict[str, _Asked]:
        names = np.asarray(window["surface"].to_pylist())
        items = np.asarray(window["item"].to_pylist(), object)
        asked = {surface: _Asked([], []) for surface in surfaces}
        for page in cut_pages(window):
            at_ms = int(page.at.timestamp() * 1000)
            # One object for all surfaces of the page: the runtime then encodes the history once.
            history = self.events.history(page.user, at_ms, self.runtime.max_history)
            for surface in sorted({*names[page.rows].tolist()} & asked.keys()):
                shown = page.rows[names[page.rows] == surface]
                request = TaeRequest(page.user, surface, at_ms, items[shown].tolist(), history)
                asked[surface].requests.append(request)
                asked[surface].shown.append(shown)
        return asked

    def _rows_of(self, surface: str, window: pa.Table, asked: _Asked) -> ExpertRows:
        if surface not in self._here:
            here = pc.equal(self.world.events["surface"], surface)
            self._here[surface] = events_of(self.world.events.filter(here))
        rows = np.concatenate(asked.shown)
        request_N = np.repeat(np.arange(len(asked.shown)), [len(shown) for shown in asked.shown])
        items = window["item"].take(pa.array(rows)).to_pylist()
        users_RD, known_R = self._users([request.user for request in asked.requests])
        return ExpertRows(
            items=items,
            request_index_N=request_N,
            histories=[
                self._here[surface].history(each.user, each.at_ms, HISTORY_LENGTH) for each in asked.requests
            ],
            request_at_ms_R=np.asarray([each.at_ms for each in asked.requests], np.int64),
            item_features=self.world.items,
            label_N=window["label"].take(pa.array(rows)).to_numpy().astype(np.float32),
            tae_ND=np.concatenate([each.tae_MD for each in self.runtime.tae(asked.requests)]),
            user_vectors_ND=users_RD[request_N],
            user_found_N=known_R[request_N],
            item_vectors_ND=self._items_ID[[self._places[item] for item in items]],
            item_found_N=np.ones(len(items), np.bool_),
        )

    def _users(self, users: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Vectors [R, D], zeros where the user had no events yet, and which had."""
        distinct, places = np.unique(np.asarray(users, object), return_inverse=True)
        at_ms, limit = self.embedded_at_ms, self.runtime.max_history
        histories = [self.events.history(user, at_ms, limit) for user in distinct]
        known = np.asarray([len(history) > 0 for history in histories])
        vectors = np.zeros((len(distinct), self.runtime.dim), np.float32)
        vectors[known] = self.runtime.embed_users(
            [
                UserRequest(user, at_ms, history)
                for user, history in zip(distinct, histories, strict=True)
                if len(history)
            ]
        )
        return vectors[places], known[places]
