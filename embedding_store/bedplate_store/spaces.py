"""Spaces: one embedding output of one version of a foundation."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bedplate.errors import AlreadyExists, InvalidRequest, NotFound
from bedplate.references import SpaceReference, check_name
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import Space
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow


class SpaceKey(NamedTuple):
    """Which space; unlike a reference it names the version by number, never by alias."""

    foundation: str
    version: int
    space: str

    @classmethod
    def parse(cls, text: str) -> SpaceKey:
        """Read ``core@7/item``.

        Raises:
            InvalidRequest: it is not of that form, or names the version by an alias.
        """
        reference = SpaceReference.parse(text)
        if reference.version.number is None:
            raise InvalidRequest(f"{text!r} names an alias: resolve it to a version number first.")
        return cls(reference.version.foundation, reference.version.number, reference.space)

    def __str__(self) -> str:
        return f"{self.foundation}@{self.version}/{self.space}"


def ensure_space(
    session: WriteSession,
    *,
    foundation: str,
    version: int,
    space: str,
    signature: SpaceSignature,
    team: str,
    now: datetime,
) -> Space:
    """Create the space, or return it as it stands.

    Raises:
        AlreadyExists: it stands with another signature.
        InvalidRequest: a name is not allowed.
    """
    key = SpaceKey(check_name(foundation, "foundation"), version, check_name(space, "space"))
    row = find_row(session, key)
    if row is None:
        row = _insert(session, key, signature, team, now)
    wanted = (signature.dim, signature.dtype, signature.metric, signature.key_type)
    if (row.dim, row.dtype, row.metric, row.key_type) != wanted:
        raise AlreadyExists(
            f"the space {key} exists with dimension {row.dim}, {row.dtype}, {row.metric}, {row.key_type} "
            "keys; a space never changes: use another name or another version.",
            reference=str(key),
        )
    return _document(session, row)


def get_space(session: ReadSession, foundation: str, version: int, space: str) -> Space:
    """The space and how far its snapshot and writes are (NotFound)."""
    return _document(session, space_row(session, SpaceKey(foundation, version, space)))


def list_spaces(
    session: ReadSession, foundation: str | None = None, version: int | None = None
) -> list[Space]:
    """All spaces, or those of a foundation or version, ordered by foundation, version and name."""
    query = select(SpaceRow).order_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    if foundation is not None:
        query = query.where(SpaceRow.foundation == foundation)
    if version is not None:
        query = query.where(SpaceRow.version == version)
    return [_document(session, row) for row in session.scalars(query)]


def find_row(session: ReadSession, key: SpaceKey, *, lock: bool = False) -> SpaceRow | None:
    """The space's row, None where there is none."""
    query = select(SpaceRow).where(
        SpaceRow.foundation == key.foundation,
        SpaceRow.version == key.version,
        SpaceRow.space == key.space,
    )
    if lock:
        # Read anew even if this session has seen the row before: what it saw then may have changed.
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)


def space_row(session: ReadSession, key: SpaceKey, *, lock: bool = False) -> SpaceRow:
    """The space's row; ``lock`` keeps others from changing it until this transaction ends.

    Raises:
        NotFound: there is no such space.
    """
    row = find_row(session, key, lock=lock)
    if row is None:
        raise NotFound(
            f"there is no space {key}: publish version {key.foundation}@{key.version} with a space "
            f"{key.space!r} in its signature first.",
            reference=str(key),
        )
    return row


def attributes_before(session: ReadSession, key: SpaceKey) -> list[str]:
    """The attributes, by name, that the space had in the newest earlier version in which it had any."""
    query = select(SpaceRow.attributes).where(
        SpaceRow.foundation == key.foundation,
        SpaceRow.space == key.space,
        SpaceRow.version < key.version,
    )
    earlier = session.scalars(query.order_by(SpaceRow.version.desc()))
    return sorted(next((attributes for attributes in earlier if attributes), {}))


def pending_rows(session: ReadSession, row: SpaceRow) -> int:
    """Rows and tombstones of the writes that the space's snapshot does not hold yet."""
    snapshot = None if row.snapshot is None else session.get(SnapshotRow, (row.id, row.snapshot))
    return row.written_rows - (0 if snapshot is None else snapshot.covers_rows)


def _insert(
    session: WriteSession, key: SpaceKey, signature: SpaceSignature, team: str, now: datetime
) -> SpaceRow:
    row = SpaceRow(
        foundation=key.foundation,
        version=key.version,
        space=key.space,
        dim=signature.dim,
        dtype=signature.dtype,
        metric=signature.metric,
        entity=signature.entity,
        key_type=signature.key_type,
        attributes={},
        team=team,
        snapshot=None,
        sequence=0,
        wanted_until=None,
        written_rows=0,
        created_at=now,
        updated_at=now,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # Somebody else created it between our look and our insert; theirs is as good if it is the same.
        return space_row(session, key)
    return row


def _document(session: ReadSession, row: SpaceRow) -> Space:
    snapshot = None if row.snapshot is None else session.get(SnapshotRow, (row.id, row.snapshot))
    return Space.model_validate(
        {
            "reference": str(SpaceKey(row.foundation, row.version, row.space)),
            "foundation": row.foundation,
            "version": row.version,
            "space": row.space,
            "dim": row.dim,
            "dtype": row.dtype,
            "metric": row.metric,
            "key_type": row.key_type,
            "snapshot": row.snapshot,
            "rows": 0 if snapshot is None else snapshot.rows,
            "pending_rows": pending_rows(session, row),
            "attributes": row.attributes,
            "updated_at": row.updated_at,
        }
    )
