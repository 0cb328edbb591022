"""Sealing the impression log: by the reconciler all the time, and as a job of kind "seal_log"."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog
from bedplate_store.leases import Claim
from bedplate_store.objects import ObjectStore
from bedplate_workers.handlers import Finish, Progress, Workplace, result
from bedplate_workers.logging import get_logger

# A spool file waits until it is worth a segment, but not longer than this.
SEGMENT_BYTES = 4 * 2**20
MAX_AGE_SECONDS = 2.0
_log = get_logger(__name__)


class LogSealer:
    """Seals what every process of this machine has spooled, as it becomes due."""

    def __init__(self, spool_dir: Path, objects: ObjectStore, database: Database) -> None:
        self._impressions = ImpressionLog(spool_dir, objects, database)

    def seal(self, now: datetime) -> int:
        """Seal what is big or old enough; how many requests.

        Raises:
            InternalError: a spool file is damaged; it was set aside.
        """
        report = self._impressions.seal(now, min_bytes=SEGMENT_BYTES, max_age_seconds=MAX_AGE_SECONDS)
        if report.conflicts:
            _log.error("requests were logged twice with different content", requests=report.conflicts)
        if report.requests:
            _log.info("sealed", segments=report.segments, requests=report.requests, rows=report.rows)
        return report.requests


def seal(workplace: Workplace, _claim: Claim, _progress: Progress) -> Finish:
    """Seal everything that is spooled now; sealing is a transaction of its own and idempotent."""
    log = ImpressionLog(workplace.spool_dir, workplace.objects, workplace.store)
    return result(asdict(log.seal(workplace.now())))
