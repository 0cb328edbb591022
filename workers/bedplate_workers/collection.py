"""Jobs of kind "collect": remove the objects that nothing refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from bedplate_registry import uploads
from bedplate_store import collection, ledger, training_sets
from bedplate_store.database import ReadSession
from bedplate_store.leases import Claim
from bedplate_store.tables.jobs import JobRow, PartitionRow
from bedplate_workers.handlers import Finish, Progress, Workplace, result


def collect(workplace: Workplace, _claim: Claim, _progress: Progress) -> Finish:
    """Remove them; deleting needs no transaction of ours, and a second run finds less to do."""
    with workplace.store.read() as session:
        keep = unpublished_digests(session)
    collected = collection.collect(
        workplace.store,
        workplace.objects,
        now=workplace.now(),
        grace=timedelta(seconds=workplace.collect_grace_seconds),
        keep=keep,
    )
    parts = training_sets.discard_parts(workplace.store, workplace.objects)
    uploads_swept = uploads.sweep(workplace.registry, workplace.objects)
    return result({**asdict(collected), "training_set_parts": parts, "upload_parts": uploads_swept})


def unpublished_digests(session: ReadSession) -> set[str]:
    """Segments and indexes that the partitions of unfinished jobs have made and no snapshot refers to yet."""
    results = session.scalars(
        select(PartitionRow.result)
        .join(JobRow, PartitionRow.job_id == JobRow.id)
        .where(JobRow.state.in_(ledger.ACTIVE_STATES), PartitionRow.state == "done")
    )
    return {digest for each in results if each for digest in _digests(each)}


def _digests(document: Mapping[str, Any]) -> Iterator[str]:
    """An embedded partition names its segment and its sample; a base, a trained index, a part of one and a
    prepared snapshot document theirs."""
    for member in ("segment", "sample", "index", "trained", "part"):
        value = document.get(member)
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield str(value["digest"])
