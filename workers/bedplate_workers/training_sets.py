"""Jobs of kind "training_set": the point-in-time join, one time window a partition, then the manifest."""

from __future__ import annotations

from bedplate_store import training_sets
from bedplate_store.leases import Claim
from bedplate_workers.handlers import Finish, Progress, Workplace, result


def join(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Join one sub-window of the impression log to its outcomes."""
    return result(training_sets.join_partition(workplace.store, workplace.objects, claim.params))
