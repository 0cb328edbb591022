"""Rows for an expert that needs no foundation: a surface's whole past, cut as the replay cuts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate_modeling.expert_rows import ExpertRows
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.worlds import cut_pages


def past_rows(
    events: pa.Table, surface: str, features: Mapping[str, Mapping[str, Any]], history_length: int
) -> ExpertRows:
    """Every labelled event of ``surface`` as a candidate of its page's request.

    Args:
        events: of all surfaces, oldest first, so that pages begin and end where those of the replay do.
    """
    here = pc.equal(events["surface"], surface)
    past = events_of(events.filter(here))
    wanted = pc.and_(here, pc.is_valid(events["label"])).to_numpy()
    rows: list[NDArray[np.int64]] = []
    requests: list[NDArray[np.int64]] = []
    users: list[str] = []
    at_ms: list[int] = []
    for page in cut_pages(events):
        chosen = page.rows[wanted[page.rows]]
        if len(chosen):
            rows.append(chosen)
            requests.append(np.full(len(chosen), len(users), np.int64))
            users.append(page.user)
            at_ms.append(int(page.at.timestamp() * 1000))
    taken = pa.array(np.concatenate(rows))
    return ExpertRows(
        items=events["item"].take(taken).to_pylist(),
        request_index_N=np.concatenate(requests),
        histories=[past.history(user, at, history_length) for user, at in zip(users, at_ms, strict=True)],
        request_at_ms_R=np.asarray(at_ms, dtype=np.int64),
        item_features=features,
        label_N=events["label"].take(taken).to_numpy().astype(np.float32),
    )
