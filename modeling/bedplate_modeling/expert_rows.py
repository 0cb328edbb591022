# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""What an expert trains on and scores: candidates, each belonging to a request with its recent same-surface
history.

Legend: N candidates, R requests, L history places, D width of the foundation's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InvalidRequest
from bedplate_modeling.config import ExpertConfig
from bedplate_modeling.events import History


class ExpertRowsInvalid(InvalidRequest):
    """The rows do not fit each other or the expert's configuration."""

    code = "expert_rows_invalid"
    title = "The expert's input is invalid"


@dataclass(frozen=True)
class ExpertRows:
    """Candidates and their requests.

    Attributes:
        items: N keys.
        request_index_N: int64, the request (0..R-1) of each candidate.
        histories: R histories of the expert's surface, oldest first, strictly before the request's time.
            Longer ones than the expert's ``history_length`` are cut to the most recent events.
        request_at_ms_R: int64, the requests' times.
        tae_ND: float32, as logged, for experts on TAE.
        user_vectors_ND, item_vectors_ND: float32 and user_found_N, item_found_N: bool, for experts on
            vectors; rows that were not found are ignored.
        item_features: item -> feature -> value or values; items may be missing.
        label_N: float32 0 or 1, needed in training only.
    """

    items: Sequence[str]
    request_index_N: NDArray[np.int64]
    histories: Sequence[History]
    request_at_ms_R: NDArray[np.int64]
    tae_ND: NDArray[np.float32] | None = None
    user_vectors_ND: NDArray[np.float32] | None = None
    item_vectors_ND: NDArray[np.float32] | None = None
    user_found_N: NDArray[np.bool_] | None = None
    item_found_N: NDArray[np.bool_] | None = None
    item_features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label_N: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def check(self, config: ExpertConfig) -> None:
        """Raises ExpertRowsInvalid unless the rows fit each other and what ``config`` reads."""
        size, requests = len(self.items), len(self.histories)
        if len(self.request_index_N) != size:
            raise ExpertRowsInvalid(f"{size} items but {len(self.request_index_N)} request indices")
        if len(self.request_at_ms_R) != requests:
            raise ExpertRowsInvalid(f"{requests} histories but {len(self.request_at_ms_R)} request times")
        if size and (self.request_index_N.min() < 0 or self.request_index_N.max() >= requests):
            raise ExpertRowsInvalid(f"request indices must be in 0..{requests - 1}")
        for place, history in enumerate(self.histories):
            if len(history) and history.event_time_ms[-1] >= self.request_at_ms_R[place]:
                raise ExpertRowsInvalid(f"the history of request {place} does not end before the request")
        if config.foundation_inputs == "tae":
            self._check_vectors("tae_ND", config.foundation_dim)
        elif config.foundation_inputs == "vectors":
            for name in ("user_vectors_ND", "item_vectors_ND"):
                self._check_vectors(name, config.foundation_dim)
            for name in ("user_found_N", "item_found_N"):
                mask = getattr(self, name)
                if mask is None or mask.shape != (size,):
                    raise ExpertRowsInvalid(f"{name} must be a boolean for each of the {size} items")

    def _check_vectors(self, name: str, dim: int) -> None:
        vectors = getattr(self, name)
        if vectors is None:
            raise ExpertRowsInvalid(f"the expert reads {name}, which is missing")
        if vectors.shape != (len(self), dim):
            raise ExpertRowsInvalid(f"{name} has shape {vectors.shape}, expected {(len(self), dim)}")
        if not np.isfinite(vectors).all():
            raise ExpertRowsInvalid(f"{name} holds NaN or infinite values")
