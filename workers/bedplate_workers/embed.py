"""Jobs of kind "embed": run a foundation over items or users, index the vectors, publish the snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.errors import KeyTypeMismatch
from bedplate.wire.registry import KeyType
from bedplate_modeling.events import History
from bedplate_modeling.requests import UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_store import compression, item_attributes, items, jobs, segments, snapshots, spaces, timelines
from bedplate_store.database import WriteSession
from bedplate_store.embedding_jobs import EmbedPlan
from bedplate_store.index_stages import ASSEMBLE
from bedplate_store.key_ranges import KeyRange
from bedplate_store.leases import Claim
from bedplate_store.snapshots import PreparedSnapshot
from bedplate_store.timelines import TimelineColumns
from bedplate_workers.handlers import Finish, Progress, Workplace, result

# Fixed: the size of a batch changes the rounding, and a partition done twice must give the same bytes.
ITEMS_AT_ONCE = 4_096
USERS_AT_ONCE = 256


def embed(workplace: Workplace, claim: Claim, progress: Progress) -> Finish:
    """Embed the entities of one key range and write them as one segment.

    Raises:
        NotFound, VersionNotReady, ObjectDamaged, CheckpointInvalid: there is no such model to run.
        KeyTypeMismatch: an int64 space meets an entity whose key is no integer.
        NonFiniteVectors: the model gives NaN or infinity, or overflows the storage dtype.
        Conflict: an item's feature is of another type than when the job was planned.
    """
    plan = EmbedPlan.from_json(claim.job_params)
    key_range = KeyRange(claim.params["start"], claim.params["end"], claim.units)
    runtime = workplace.checkpoints.model(plan.foundation, plan.version)
    parts = _items if plan.entity == "item" else _users
    keys: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    tables: list[pa.Table] = []
    for part_keys, part_vectors, part_attributes in parts(workplace, plan, key_range, runtime):
        keys += part_keys
        vectors.append(part_vectors)
        if part_attributes is not None:
            tables.append(part_attributes)
        progress(len(keys))
    typed = _typed(keys, plan.key_type, plan.reference)
    whole = np.concatenate(vectors) if vectors else np.zeros((0, plan.dim), np.float32)
    info = segments.write_segment(
        workplace.objects,
        keys=typed,
        vectors=whole,
        dtype=plan.dtype,
        key_type=plan.key_type,
        attributes=pa.concat_tables(tables) if tables else None,
    )
    sample = compression.keep_sample(workplace.objects, typed, whole, info, claim.params["sample"])
    return result({"segment": info.digest, "rows": info.rows, "bytes": info.bytes, "sample": sample})


def publish(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Publish the snapshot in the transaction that ends the job.

    Raises:
        SnapshotMoved: another snapshot was published just now; the next attempt folds that one too.
    """
    plan = EmbedPlan.from_json(claim.job_params)
    with workplace.store.read() as session:
        prepared = PreparedSnapshot.from_json(jobs.results(session, claim.job_id, ASSEMBLE)[0])
        current = spaces.get_space(session, plan.foundation, plan.version, plan.space).snapshot
    if current != prepared.expected_snapshot:
        # A compaction or another job was faster: what was prepared no longer stands on what readers see.
        prepared = _prepare(workplace, claim)

    def finish(session: WriteSession) -> dict[str, Any]:
        snapshot = snapshots.publish(
            session, prepared, objects=workplace.objects, job=claim.job_id, now=workplace.now()
        )
        return snapshot.model_dump(mode="json")

    return finish


def _prepare(workplace: Workplace, claim: Claim) -> PreparedSnapshot:
    plan = EmbedPlan.from_json(claim.job_params)
    with workplace.store.read() as session:
        embedded = jobs.results(session, claim.job_id, "embed")
    return snapshots.prepare(
        workplace.store,
        workplace.objects,
        workplace.cache_dir,
        plan.space_key,
        [each["segment"] for each in embedded],
        plan.index,
        covers_sequence=plan.covers_sequence,
        samples=samples_of(embedded),
        centroids=workplace.centroids,
    )


def samples_of(embedded: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the partitions kept uncompressed, by their results."""
    return [each["sample"] for each in embedded if each["sample"] is not None]


Part = tuple[list[str], NDArray[np.float32], pa.Table | None]
"""Keys [n], vectors [n, dim] and attributes [n] of some entities."""


def _items(
    workplace: Workplace, plan: EmbedPlan, key_range: KeyRange, runtime: FoundationRuntime
) -> Iterator[Part]:
    after: str | None = None
    while True:
        # A transaction for each batch: none stays open while the model computes.
        with workplace.store.read() as session:
            batch = items.page(session, key_range, after=after, limit=ITEMS_AT_ONCE)
        if not batch:
            return
        features: Mapping[str, Mapping[str, Any]] = {item.key: item.features for item in batch}
        after = batch[-1].key
        keys = list(features)
        attributes = item_attributes.table_of(keys, list(features.values()), plan.attributes)
        yield keys, runtime.embed_items(keys, features), attributes


def _users(
    workplace: Workplace, plan: EmbedPlan, key_range: KeyRange, runtime: FoundationRuntime
) -> Iterator[Part]:
    # Rounded up, so that no event before as_of is hidden by the model's milliseconds.
    at_ms = -(-plan.as_of_us // 1000)
    with workplace.store.read() as session:
        users = timelines.users(session, plan.as_of, key_range)
    for keys in _batches(users, USERS_AT_ONCE):
        with workplace.store.read() as session:
            read = timelines.read_many(
                session,
                [(user, plan.as_of) for user in keys],
                limit=runtime.max_history,
                up_to_sequence=plan.event_sequence,
            )
        requests = [UserRequest(timeline.user, at_ms, history_of(timeline)) for timeline in read]
        yield keys, runtime.embed_users(requests), None


def history_of(timeline: TimelineColumns) -> History:
    """A timeline as the models take it."""
    return History(timeline.item, timeline.action, timeline.surface, timeline.event_time_us // 1000)


def _batches(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(keys), size):
        yield list(keys[start : start + size])


def _typed(keys: list[str], key_type: KeyType, reference: str) -> list[str] | NDArray[np.int64]:
    if key_type == "string":
        return keys
    try:
        return np.array([int(key) for key in keys], np.int64)
    except (ValueError, OverflowError) as error:
        raise KeyTypeMismatch(
            f"{reference} has int64 keys, but an entity's key is no 64-bit integer ({error}); "
            "publish a version whose space has string keys, or use integer keys."
        ) from error
