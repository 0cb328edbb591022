# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""What the foundation's runtime is asked, and what it answers.

Legend: M candidates of a request, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate_modeling.events import History


@dataclass(frozen=True)
class UserRequest:
    """A user as of a time; only events strictly before ``at_ms`` are seen."""

    user: str
    at_ms: int
    history: History


@dataclass(frozen=True)
class TaeRequest:
    """Candidates to be embedded for a user on a surface at a time.

    Attributes:
        candidates: M item keys, repeats allowed.
        history: the user's events of all surfaces, oldest first. Only the last ``max_history`` of those
            strictly before ``at_ms`` are seen, so more may be given.
        candidate_features: item -> feature -> value or values, for items the model does not know.
    """

    user: str
    surface: str
    at_ms: int
    candidates: Sequence[str]
    history: History
    candidate_features: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class TaeResult:
    """tae_MD: float32 [M, D]. prediction_M: float32 [M], the main task's probability. Both in candidate
    order."""

    tae_MD: NDArray[np.float32]
    prediction_M: NDArray[np.float32]
