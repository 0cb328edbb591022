"""Your own events as a world: a directory of Parquet or CSV files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.datasets import EventFormat, read_events
from bedplate.errors import InvalidRequest
from bedplate_services.demo.worlds import World

TERMS = "Your own events: they stay on this machine."


def read_directory(directory: Path, how: EventFormat) -> World:
    """Read the files, put the events in time order (ties: by file, then by row), collect the catalogue.

    An item's features are the last ones its events carry.

    Raises:
        InvalidRequest: no readable files, or a value that cannot be read (file, row and column are named).
        EmptyBatch: no events.
    """
    events = pa.concat_tables(read_events(directory, how)).combine_chunks()
    order = pc.sort_indices(events, sort_keys=[("event_time", "ascending")])
    events = events.take(order)
    labels = set(pc.unique(events["label"].drop_null()).to_pylist())
    if not labels <= {0.0, 1.0} or len(labels) < 2:
        raise InvalidRequest(
            f"The labels in {directory} are {sorted(labels)[:5]}: both 0 and 1 are needed, and nothing else."
        )
    return World(directory.name, events.drop_columns(["features"]), _catalogue(events))


def _catalogue(events: pa.Table) -> dict[str, dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {key: {} for key in pc.unique(events["item"]).to_pylist()}
    known = events.filter(pc.is_valid(events["features"]))
    for key, features in zip(known["item"].to_pylist(), known["features"].to_pylist(), strict=True):
        items[key] = json.loads(features)
    return items
