# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""How a foundation model's training run cuts the events into windows, batches and pages.

Each event of a window appears as a history token and as a candidate, so a window of n events gives n labels
for 2n tokens. Candidates are grouped into random pages of consecutive events, as they come in serving: all
candidates of a page see the history strictly before the page's first event, events of the same instant
excluded.

Legend: E events, W windows, B windows of a batch, N history tokens, M candidates, Q queries,
R targets of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bedplate_modeling.events import Events
from bedplate_modeling.foundation import CandidateBatch, FoundationModel, HistoryBatch, ItemTokens
from bedplate_modeling.vocabulary import Vocabulary

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedEvents:
    """Events as indices of a vocabulary (int64 [E]) with times in seconds and labels.

    ``instant_starts``: int64 [E], the row of the first event of the same user and instant.
    ``positive_rows``: the rows with label 1; ``positives_before``: int64 [E + 1], how many of them precede
    each row.
    """

    items: Ints
    actions: Ints
    surfaces: Ints
    times: Ints
    labels: NDArray[np.float32]
    user_starts: Ints
    instant_starts: Ints
    positive_rows: Ints
    positives_before: Ints

    @classmethod
    def encode(cls, events: Events, vocabulary: Vocabulary) -> EncodedEvents:
        starts = events.user_starts
        return cls(
            items=events.item.recode(vocabulary.item_index),
            actions=events.action.recode(vocabulary.action_index),
            surfaces=events.surface.recode(vocabulary.surface_index),
            times=events.event_time_ms // 1000,
            labels=events.label,
            user_starts=starts,
            instant_starts=_instant_starts(events),
            positive_rows=np.flatnonzero(events.label == 1),
            positives_before=np.concatenate([[0], np.cumsum(events.label == 1)]).astype(np.int64),
        )


def _instant_starts(events: Events) -> Ints:
    size = len(events)
    fresh = np.ones(size, dtype=bool)
    fresh[1:] = np.diff(events.event_time_ms) != 0
    fresh[events.user_starts[:-1]] = True
    return np.maximum.accumulate(np.where(fresh, np.arange(size), 0))


@dataclass(frozen=True)
class Windows:
    """W windows: history tokens are the events [start, stop), candidates are [label_start, stop)."""

    starts: Ints
    label_starts: Ints
    stops: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Ints) -> Windows:
        return Windows(self.starts[rows], self.label_starts[rows], self.stops[rows])


def cut_windows(user_starts: Ints, length: int, generator: np.random.Generator) -> Windows:
    """Every event is a candidate exactly once; users longer than ``length`` are cut at a random offset into
    windows that overlap by half, so that a candidate sees at least half a window of history where there is
    one."""
    step = max(1, length // 2)
    found: list[tuple[int, int, int]] = []
    for start, stop in zip(user_starts[:-1].tolist(), user_starts[1:].tolist(), strict=True):
        end = stop if stop - start <= length else start + int(generator.integers(step, length + 1))
        found.append((start, start, end))
        while end < stop:
            label_start, end = end, min(stop, end + step)
            found.append((max(start, end - length), label_start, end))
    table = np.asarray(found, dtype=np.int64).reshape(-1, 3)
    return Windows(table[:, 0], table[:, 1], table[:, 2])


def batches(windows: Windows, batch_tokens: int, generator: np.random.Generator) -> list[Windows]:
    """Windows of like length together, at most ``batch_tokens`` padded history tokens each, in random
    order."""
    sizes = windows.stops - windows.starts
    order = np.argsort(sizes + generator.uniform(0, 8, len(sizes)), kind="stable")[::-1]
    found, first = [], 0
    while first < len(order):
        count = max(1, batch_tokens // int(sizes[order[first]] + 8))
        found.append(windows.take(order[first : first + count]))
        first += count
    return [found[place] for place in generator.permutation(len(found))]


def random_page_starts(shape: tuple[int, int], page_size: int, generator: np.random.Generator) -> Ints:
    """int64 [B, M]: for each place, the first place of its page; page sizes are uniform in 1..page_size."""
    rows, places = shape
    sizes = generator.integers(1, page_size + 1, size=(rows, places))
    bounds = np.cumsum(sizes, axis=1)
    opens = np.zeros((rows, places + 1), dtype=np.int64)
    row_of = np.repeat(np.arange(rows)[:, None], places, axis=1)
    inside = bounds < places
    opens[row_of[inside], bounds[inside]] = bounds[inside]
    return np.maximum.accumulate(opens, axis=1)[:, :places]


@dataclass(frozen=True)
class TrainingBatch:
    """One step's input: B windows; ``labels_BM`` is NaN where there is no label or only padding. A few pages
    per window also carry a query: the items of the user's next positive events (0 if there is none in the
    data)."""

    history: HistoryBatch
    candidates: CandidateBatch
    labels_BM: Tensor
    actions_BM: Tensor
    query_times_BQ: Tensor
    query_visible_BQ: Tensor
    query_items_BQR: Tensor
    rows: int


QUERIES_PER_WINDOW = 12
TARGETS_PER_QUERY = 8


class BatchMaker:
    """Turns windows into tensors. ``generator`` draws pages, hidden items and queries."""

    def __init__(self, events: EncodedEvents, model: FoundationModel, generator: np.random.Generator) -> None:
        self.events, self.model, self.generator = events, model, generator

    def make(self, windows: Windows) -> TrainingBatch:
        rows_BN, _ = _rows(windows.starts, windows.stops)
        rows_BM, real_BM = _rows(windows.label_starts, windows.stops)
        pages_BM = random_page_starts(rows_BM.shape, self.model.config.page_size, self.generator)
        page_rows_BM = np.take_along_axis(rows_BM, pages_BM, axis=1)
        visible_BM = np.maximum(self.events.instant_starts[page_rows_BM] - windows.starts[:, None], 0)
        times_BM = self.events.times[page_rows_BM]
        labels_BM = np.where(real_BM, self.events.labels[rows_BM], np.float32(np.nan))
        history = HistoryBatch(
            items=self._items(rows_BN),
            actions_BN=torch.from_numpy(self.events.actions[rows_BN]),
            surfaces_BN=torch.from_numpy(self.events.surfaces[rows_BN]),
            times_BN=torch.from_numpy(self.events.times[rows_BN]),
        )
        candidates = CandidateBatch(
            items=self._items(rows_BM),
            surfaces_BM=torch.from_numpy(self.events.surfaces[rows_BM]),
            times_BM=torch.from_numpy(times_BM),
            visible_BM=torch.from_numpy(visible_BM),
        )
        widths_B1 = (windows.stops - windows.label_starts)[:, None]
        chosen_BQ = self.generator.integers(0, widths_B1, (len(windows), QUERIES_PER_WINDOW))
        query_rows_BQ = self.events.instant_starts[np.take_along_axis(page_rows_BM, chosen_BQ, 1)]
        return TrainingBatch(
            history=history,
            candidates=candidates,
            labels_BM=torch.from_numpy(labels_BM),
            actions_BM=torch.from_numpy(np.where(real_BM, self.events.actions[rows_BM], 0)),
            query_times_BQ=torch.from_numpy(np.take_along_axis(times_BM, chosen_BQ, 1)),
            query_visible_BQ=torch.from_numpy(np.take_along_axis(visible_BM, chosen_BQ, 1)),
            query_items_BQR=torch.from_numpy(self._liked_next(query_rows_BQ, windows.stops)),
            rows=int(real_BM.sum()),
        )

    def _items(self, rows_BT: Ints) -> ItemTokens:
        items_BT = torch.from_numpy(self.events.items[rows_BT])
        features = self.model.feature_table[items_BT]
        hidden = self.generator.random(rows_BT.shape) < self.model.config.item_dropout
        return ItemTokens(items_BT.masked_fill(torch.from_numpy(hidden), 0), features)

    def _liked_next(self, rows_BQ: Ints, stops_B: Ints) -> Ints:
        """int64 [B, Q, R]: items of the window's first R positive events from each row on, 0 where it has
        fewer."""
        events = self.events
        order_BQR = events.positives_before[rows_BQ][..., None] + np.arange(TARGETS_PER_QUERY)
        exists = order_BQR < events.positives_before[stops_B][:, None, None]
        if len(events.positive_rows) == 0:
            return np.zeros(order_BQR.shape, np.int64)
        found = events.positive_rows[np.minimum(order_BQR, len(events.positive_rows) - 1)]
        return np.where(exists, events.items[found], 0)


def _rows(starts: Ints, stops: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Event rows [B, T] of [start, stop), padded at the end with the last row, and which of them are real."""
    rows = starts[:, None] + np.arange((stops - starts).max())[None]
    return np.minimum(rows, stops[:, None] - 1), rows < stops[:, None]


def epochs(
    events: EncodedEvents, model: FoundationModel, generator: np.random.Generator
) -> Iterator[tuple[int, list[Windows]]]:
    """(epoch, its batches), freshly cut and shuffled each time."""
    config = model.config
    for epoch in range(config.epochs):
        windows = cut_windows(events.user_starts, config.max_history, generator)
        yield epoch, batches(windows, config.batch_tokens, generator)
