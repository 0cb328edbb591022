"""Keeps a lease alive from a thread of its own while a handler works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from bedplate.errors import LeaseLost
from bedplate_store import leases
from bedplate_store.database import Database
from bedplate_store.leases import Claim
from bedplate_workers.clocks import Clock
from bedplate_workers.logging import get_logger

BEATS_PER_LEASE = 3
_log = get_logger(__name__)


class Interrupted(Exception):
    """This process has been told to stop; the partition goes back to the ledger."""


class Heartbeat:
    """Renews the lease until the block ends; also the ``Progress`` of the handler inside it.

    A beat that fails for any other reason than a lost lease is tried again at the next: a database that is
    away for a moment must not cost the work done so far, and the fencing token guards the commit in any case.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        lease_seconds: float,
        now: Clock,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._now = now
        self._stopping = stopping
        self._done = 0
        self._lost: LeaseLost | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __call__(self, done: int) -> None:
        """Note the progress. Raises LeaseLost or Interrupted."""
        self._done = done
        if self._lost is not None:
            raise self._lost
        if self._stopping():
            raise Interrupted

    def beat(self) -> None:
        """Renew the lease now and store the progress."""
        try:
            leases.heartbeat(self._database, self._claim, self._lease_seconds, self._now(), done=self._done)
        except LeaseLost as error:
            self._lost = error
        except Exception as error:  # noqa: BLE001  # see the class: the next beat tries again
            _log.warning("a heartbeat failed", partition=self._claim.partition_id, exc_info=error)

    def _beat_on(self) -> None:
        while self._lost is None and not self._ended.wait(self._lease_seconds / BEATS_PER_LEASE):
            self.beat()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
