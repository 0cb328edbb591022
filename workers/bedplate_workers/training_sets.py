"""Jobs of kind "training_set": the point-in-time join, one time window a partition, then the files."""

from __future__ import annotations

from typing import Any

from bedplate_store import jobs, training_joins, training_sets
from bedplate_store.database import WriteSession
from bedplate_store.leases import Claim
from bedplate_workers.handlers import Finish, Progress, Workplace, result


def join(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Join one window of the impression log to its outcomes."""
    return result(training_joins.join_partition(workplace.store, workplace.objects, claim.params))


def publish(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Join the parts into files; they become visible in the transaction that ends the job."""
    with workplace.store.read() as session:
        parts = jobs.results(session, claim.job_id, "join")
    prepared = training_sets.prepare(workplace.store, workplace.objects, claim.params["training_set"], parts)

    def finish(session: WriteSession) -> dict[str, Any]:
        return training_sets.publish(session, prepared)

    return finish
