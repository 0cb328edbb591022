"""What the demo runs on: a world's events in time order, its catalogue, and where the timeline is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.errors import InvalidRequest

SHORT_SHARE = 0.35
"""Version 1 of the foundation sees this first part of the events."""
FOUNDATION_SHARE = 0.60
"""Version 2 sees everything up to here."""
TRAINING_SHARE = 0.85
"""The experts' training impressions end here; the rest is the evaluation, which nothing before has seen."""
PAGE_ITEMS = 20
PAGE_SECONDS = 600


@dataclass(frozen=True)
class Cuts:
    """Times (microseconds since the epoch, UTC) that cut the timeline into four half-open windows."""

    start: int
    short_end: int
    foundation_end: int
    training_end: int
    end: int


@dataclass(frozen=True)
class World:
    """Events of several surfaces, oldest first.

    Attributes:
        name: what the world is called in the report.
        events: user, item, action, surface (string), event_time (timestamp[us, UTC]), label (float32).
        items: item key -> features.
        bayes_ne: surface -> NE of the process that made the labels, where it is known (synthetic worlds).
    """

    name: str
    events: pa.Table
    items: Mapping[str, Mapping[str, Any]]
    bayes_ne: Mapping[str, float] | None = None

    @property
    def surfaces(self) -> list[str]:
        return sorted(self.surface_rows())

    def surface_rows(self) -> dict[str, int]:
        """Surface -> number of its events."""
        counts = pc.value_counts(self.events["surface"]).to_pylist()
        return {one["values"]: one["counts"] for one in sorted(counts, key=lambda one: one["values"])}

    def times(self) -> NDArray[np.int64]:
        """int64 [E]: event times, microseconds since the epoch."""
        times: NDArray[np.int64] = self.events["event_time"].cast(pa.int64()).to_numpy()
        return times

    def cuts(self) -> Cuts:
        """The boundaries, at the shares above; events of one instant are never cut apart.

        Raises:
            InvalidRequest: the timeline is too short to cut into four windows.
        """
        times = self.times()
        if len(times) < 1000:
            raise InvalidRequest(
                f"{len(times)} events are too few to train and evaluate on: bring at least 1000."
            )
        marks = [
            int(times[int(share * len(times))]) for share in (SHORT_SHARE, FOUNDATION_SHARE, TRAINING_SHARE)
        ]
        bounds = [int(times[0]), *marks, int(times[-1]) + 1]
        if len(set(bounds)) != len(bounds):
            raise InvalidRequest(
                "Too many events share one time: the timeline cannot be cut into four windows."
            )
        return Cuts(*bounds)

    def window(self, start: int, end: int) -> pa.Table:
        """The events with start <= event_time < end (microseconds)."""
        first, last = np.searchsorted(self.times(), [start, end], side="left")
        return self.events.slice(int(first), int(last - first))


@dataclass(frozen=True)
class Page:
    """Up to PAGE_ITEMS consecutive events of a user; one request per surface at the time of the first.

    ``rows`` are indices into the table the pages were cut from, in time order.
    """

    number: int
    user: str
    at: datetime
    rows: NDArray[np.int64]


def cut_pages(events: pa.Table) -> list[Page]:
    """Cut a table of events (oldest first) into pages, in the order of their times."""
    users = events["user"].combine_chunks().dictionary_encode()
    codes = users.indices.to_numpy().astype(np.int64)
    times = events["event_time"].cast(pa.int64()).to_numpy()
    order = np.lexsort((np.arange(len(codes)), codes))
    starts = _page_starts(codes[order], times[order])
    pieces = np.split(order, starts[1:])
    pieces.sort(key=lambda rows: (times[rows[0]], rows[0]))
    names = users.dictionary.to_pylist()
    return [
        Page(number, names[codes[rows[0]]], from_microseconds(times[rows[0]]), rows)
        for number, rows in enumerate(pieces)
    ]


def _page_starts(codes: NDArray[np.int64], times: NDArray[np.int64]) -> list[int]:
    starts: list[int] = []
    user, opened, shown = -1, 0, 0
    for row, (code, time) in enumerate(zip(codes.tolist(), times.tolist(), strict=True)):
        if code != user or shown == PAGE_ITEMS or time - opened > PAGE_SECONDS * 1_000_000:
            starts.append(row)
            user, opened, shown = code, time, 0
        shown += 1
    return starts


def waves(pages: list[Page], pages_at_once: int) -> Iterator[list[Page]]:
    """Pages to be asked for together: no user twice, so a page follows the outcomes of the one before."""
    for first in range(0, len(pages), pages_at_once):
        seen: dict[str, int] = {}
        found: list[list[Page]] = []
        for page in pages[first : first + pages_at_once]:
            rank = seen.get(page.user, 0)
            seen[page.user] = rank + 1
            if rank == len(found):
                found.append([])
            found[rank].append(page)
        yield from found


def from_microseconds(value: int) -> datetime:
    """An aware UTC datetime from microseconds since the epoch."""
    seconds, microseconds = divmod(int(value), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
