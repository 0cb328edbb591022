"""Planning of embed jobs: which entities, as of when, cut into which partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self

from bedplate.errors import Conflict, InvalidRequest
from bedplate.references import VersionReference
from bedplate.wire.registry import Dtype, KeyType, Metric, SpaceSignature
from bedplate.wire.store import EmbedRequest, IndexSpecification, Job
from bedplate_store import item_attributes, items, jobs, sequences, snapshots, spaces, timelines
from bedplate_store.compression import sample_rows
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.index_stages import index_stages
from bedplate_store.key_ranges import KeyRange
from bedplate_store.spaces import SpaceKey
from bedplate_store.times import instant, microseconds

KIND = "embed"
_ROWS_PER_PARTITION = {"item": 16_384, "user": 2_048}  # seconds of work each on one CPU
_PARTITIONS_MAX = 4_096


@dataclass(frozen=True)
class EmbedPlan:
    """What every partition of an embed job shares; the job's params in the ledger.

    Attributes:
        entity: what is walked: "item", the catalogue; "user", the timelines before ``as_of_us``.
        as_of_us: int64 microseconds UTC; only events before it are seen, however late a partition runs.
        covers_sequence: the last write of the space when the job was planned; later ones stay above
            the snapshot.
        event_sequence: the last event accepted when the job was planned; later ones are not seen.
        attributes: features of the items that become columns of the segments, and their types.
    """

    foundation: str
    version: int
    space: str
    entity: Literal["item", "user"]
    dim: int
    dtype: Dtype
    metric: Metric
    key_type: KeyType
    as_of_us: int
    covers_sequence: int
    event_sequence: int
    index: IndexSpecification
    attributes: dict[str, str]

    @property
    def as_of(self) -> datetime:
        return instant(self.as_of_us)

    @property
    def space_key(self) -> SpaceKey:
        return SpaceKey(self.foundation, self.version, self.space)

    @property
    def reference(self) -> str:
        return str(self.space_key)

    def to_json(self) -> dict[str, Any]:
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**document, "index": self.index.model_dump(mode="json")}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(**{**document, "index": IndexSpecification.model_validate(document["index"])})


def survey_attributes(
    session: ReadSession,
    *,
    version: VersionReference,
    space: str,
    signature: SpaceSignature,
    request: EmbedRequest,
) -> dict[str, str]:
    """The attributes that an embed job writes, and their types; where there are any, it reads all features.

    A request that names none takes those that the space has, and in a space that has none yet those of the
    version before: filters go on working when an alias moves. Users have none.

    Raises:
        InvalidRequest: attributes of users, a feature that no item has, a name that is not allowed.
        Conflict: items disagree about a type, or with the space.
    """
    if _entity(version, space, signature) == "user":
        if request.attributes:
            raise InvalidRequest(
                f"{version}/{space} holds users, who have no features: leave attributes out."
            )
        return {}
    key = SpaceKey(version.foundation, version.number or 0, space)
    row = spaces.find_row(session, key)
    known = {} if row is None else row.attributes
    if request.attributes is not None:
        return item_attributes.survey(session, request.attributes, known)
    if known:
        return item_attributes.survey(session, sorted(known), known)
    return item_attributes.survey(session, spaces.attributes_before(session, key), {}, required=False)


def plan_embed(
    session: WriteSession,
    *,
    version: VersionReference,
    space: str,
    signature: SpaceSignature,
    request: EmbedRequest,
    team: str,
    now: datetime,
    attributes: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
) -> Job:
    """Create the embed job of a space; the same idempotency key gives the same job.

    Stages: "embed", one partition for each key range; those of :func:`index_stages`; "publish".

    Args:
        version: by number; the caller has resolved aliases.
        attributes: what :func:`survey_attributes` found, in a session of its own because it takes its time.
        origin: see :func:`bedplate_store.jobs.create`.

    Raises:
        InvalidRequest: the version is named by an alias, the space is made per request and never embedded,
            or ``as_of`` lies in the future.
        Conflict: there is nothing to embed yet, or an attribute has another type by now.
    """
    plan = _plan(session, version, space, signature, request, team, now, attributes or {})
    ranges = _cut(session, plan, request.partitions)
    if not ranges:
        raise Conflict(_nothing_to_embed(plan))
    rows = sum(each.count for each in ranges)
    sample = sample_rows(len(ranges))
    partitions = [
        jobs.PartitionSpec({"start": each.start, "end": each.end, "sample": sample}, each.count)
        for each in ranges
    ]
    return jobs.create(
        session,
        kind=KIND,
        subject=plan.reference,
        team=team,
        params=plan.to_json(),
        stages=[
            jobs.Stage("embed", partitions),
            *index_stages(plan.index, _rows_at_most(session, plan, rows), request.partitions),
            jobs.Stage("publish", [jobs.PartitionSpec({}, rows)]),
        ],
        idempotency_key=request.idempotency_key,
        now=now,
        origin=origin,
    )


def _plan(
    session: WriteSession,
    version: VersionReference,
    space: str,
    signature: SpaceSignature,
    request: EmbedRequest,
    team: str,
    now: datetime,
    attributes: Mapping[str, str],
) -> EmbedPlan:
    if version.number is None:
        raise InvalidRequest(f"{version} is an alias; an embed job needs the version's number.")
    entity = _entity(version, space, signature)
    as_of = request.as_of or now
    if as_of > now:
        raise InvalidRequest(
            f"as_of {as_of.isoformat()} lies in the future, so later events could still change the vectors; "
            "use a time up to now."
        )
    spaces.ensure_space(
        session,
        foundation=version.foundation,
        version=version.number,
        space=space,
        signature=signature,
        team=team,
        now=now,
    )
    return EmbedPlan(
        foundation=version.foundation,
        version=version.number,
        space=space,
        entity=entity,
        dim=signature.dim,
        dtype=signature.dtype,
        metric=signature.metric,
        key_type=signature.key_type,
        as_of_us=microseconds(as_of),
        covers_sequence=snapshots.current_sequence(session, version.foundation, version.number, space),
        event_sequence=sequences.current(session, "event"),
        index=request.index,
        attributes=_record_attributes(
            session, SpaceKey(version.foundation, version.number, space), attributes
        ),
    )


def _record_attributes(session: WriteSession, key: SpaceKey, found: Mapping[str, str]) -> dict[str, str]:
    """Who writes an attribute first decides its type: from now on upserts keep to these."""
    if not found:
        return {}
    row = spaces.space_row(session, key, lock=True)
    types = item_attributes.agreed(found, row.attributes)
    row.attributes = {**row.attributes, **types}
    return types


def _entity(version: VersionReference, space: str, signature: SpaceSignature) -> Literal["item", "user"]:
    if signature.entity is not None:
        return signature.entity
    # A checkpoint's own signature names its spaces after their entities and says no more.
    for entity in ("item", "user"):
        if space == entity:
            return entity
    raise InvalidRequest(
        f"{version}/{space} is made per request and has no entity to walk; embed a space of items or users."
    )


def _cut(session: ReadSession, plan: EmbedPlan, partitions: int | None) -> Sequence[KeyRange]:
    if plan.entity == "item":
        wanted = partitions or _default_partitions(items.count(session), "item")
        return items.key_ranges(session, wanted)
    wanted = partitions or _default_partitions(timelines.count_users(session, plan.as_of), "user")
    return timelines.user_ranges(session, plan.as_of, wanted)


def _default_partitions(rows: int, entity: Literal["item", "user"]) -> int:
    return min(max(1, -(-rows // _ROWS_PER_PARTITION[entity])), _PARTITIONS_MAX)


def _rows_at_most(session: ReadSession, plan: EmbedPlan, embedded: int) -> int:
    """About how many rows the base will have: nearly always those embedded, unless there are more already."""
    space = spaces.get_space(session, *plan.space_key)
    return max(embedded, space.rows + space.pending_rows)


def _nothing_to_embed(plan: EmbedPlan) -> str:
    if plan.entity == "item":
        return f"There are no items to embed for {plan.reference}: send items or events first."
    return f"No user has an event before {plan.as_of.isoformat()}: send events first, or use a later as_of."
