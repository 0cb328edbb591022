"""Transactions that the database chose to give way, and what a database that is away looks like."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

ResultT = TypeVar("ResultT")
OnRetry = Callable[[str, str], None]
"""Told the database's name and the reason, each time a transaction is run again."""

ATTEMPTS = 5
_LONGEST_FIRST_PAUSE_SECONDS = 0.05
_GAVE_WAY = {"40001": "serialisation", "40P01": "deadlock"}
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""What SQLAlchemy raises where a server does not answer, ends a connection or has none free."""
_log = logging.getLogger(__name__)


def sqlstate_of(error: BaseException) -> str | None:
    """PostgreSQL's code for what went wrong; None for other databases and for lost connections."""
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def again_while_it_gives_way(
    name: str,
    transaction: Callable[[], ResultT],
    on_retry: OnRetry,
    sleep: Callable[[float], None] = time.sleep,
) -> ResultT:
    """Run ``transaction``, up to ``ATTEMPTS`` times where the database rolled it back in favour of another.

    Nothing else is tried again: a connection lost in the middle of a commit may have committed.
    """
    attempt = 1
    while True:
        try:
            return transaction()
        except DBAPIError as error:
            reason = _GAVE_WAY.get(sqlstate_of(error) or "")
            if reason is None or attempt == ATTEMPTS:
                raise
            _log.info("a transaction on the %s database gave way (%s), attempt %d", name, reason, attempt)
        on_retry(name, reason)
        # By chance, so that two that met once do not meet again.
        sleep(random.uniform(0, _LONGEST_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)))
        attempt += 1
