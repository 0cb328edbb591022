"""An answer of the hot path, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """``rows`` is the number of keys or queries answered; ``dtype`` the element type of the vectors."""

    body: bytes
    media: str
    snapshot: int
    rows: int
    dtype: str
