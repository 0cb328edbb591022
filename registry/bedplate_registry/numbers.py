"""Version numbers: one more than the largest, kept apart by the unique constraint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bedplate.errors import Conflict
from bedplate_registry.database import Database, WriteSession

DocumentT = TypeVar("DocumentT")

# Of all that try at once one gets through in every round: so many may create versions at one moment.
_ATTEMPTS = 64


def create_numbered(
    database: Database, attempt: Callable[[WriteSession], DocumentT | None], family: str
) -> DocumentT:
    """Call ``attempt`` in a fresh transaction until it no longer answers None ("the number was just taken").

    Raises:
        Conflict: too many others create versions at this moment.
    """
    for _ in range(_ATTEMPTS):
        created = database.transact(attempt)
        if created is not None:
            return created
    raise number_taken(family)


def number_taken(family: str) -> Conflict:
    return Conflict(f"Others are creating versions of {family} at this moment; send the request again.")
