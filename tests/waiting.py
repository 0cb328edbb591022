"""Waiting for what real processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 200.0
"""More than a loaded machine needs, less than a test may take."""


def wait_until(
    true: Callable[[], object],
    told: str | Callable[[], object] = "it did not come true in time",
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Look twenty times a second; ``told`` is what the failure says in the end, or finds it out."""
    deadline = time.monotonic() + patience_seconds
    while not true():
        assert time.monotonic() < deadline, told if isinstance(told, str) else told()
        time.sleep(0.05)
