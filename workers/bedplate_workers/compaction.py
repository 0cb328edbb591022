"""Jobs of kind "compact": fold a space's writes into a new base and index."""

from __future__ import annotations

from typing import Any

from bedplate_store import compaction, snapshots
from bedplate_store.database import WriteSession
from bedplate_store.leases import Claim
from bedplate_store.spaces import SpaceKey
from bedplate_workers.handlers import Finish, Progress, Workplace


def compact(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Prepare the new base; it is published in the transaction that ends the partition.

    Raises:
        NotFound: there is no such space.
        SnapshotMoved: another snapshot was published meanwhile; the next attempt folds that one too.
    """
    params = claim.job_params
    space = SpaceKey(params["foundation"], params["version"], params["space"])
    with workplace.store.read() as session:
        specification = snapshots.specification_of(session, *space)
    prepared = compaction.prepare_compaction(
        workplace.store, workplace.objects, workplace.cache_dir, space, specification, workplace.centroids
    )

    def finish(session: WriteSession) -> dict[str, Any]:
        snapshot = snapshots.publish(
            session, prepared, objects=workplace.objects, job=claim.job_id, now=workplace.now()
        )
        return snapshot.model_dump(mode="json")

    return finish
