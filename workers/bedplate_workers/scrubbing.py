"""Jobs of kind "scrub": read every object readers may open, and tell which are damaged."""

from __future__ import annotations

from dataclasses import asdict

from bedplate_store import scrubbing
from bedplate_store.leases import Claim
from bedplate_workers.handlers import Finish, Progress, Workplace, result
from bedplate_workers.logging import get_logger

_log = get_logger(__name__)


def scrub(workplace: Workplace, _claim: Claim, progress: Progress) -> Finish:
    """The job succeeds whatever it finds: its result, and an error in the log, name the objects."""
    scrubbed = scrubbing.scrub(
        workplace.store,
        workplace.objects,
        now=workplace.now(),
        # How many there are is not known before: the job is one unit.
        progress=lambda _done: progress(0),
    )
    if scrubbed.damaged or scrubbed.missing:
        _log.error(
            "objects are damaged or missing: restore them from a copy, or embed their spaces again",
            damaged=scrubbed.damaged,
            missing=scrubbed.missing,
        )
    return result(asdict(scrubbed))
