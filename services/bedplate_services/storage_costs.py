"""What each way of storing a space takes and costs: the store knows bytes and errors, the registry NE."""

from __future__ import annotations

from typing import get_args

from bedplate.errors import NotFound
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype, NeCost, Version
from bedplate.wire.store import Snapshot, StorageCost
from bedplate_registry import evaluations, versions
from bedplate_services.composition import Platform
from bedplate_services.version_spaces import signature_of
from bedplate_store import snapshots

_COMPRESSED: tuple[Dtype, ...] = ("int8", "int4")


def costs_of(house: Platform, version: Version, space: str) -> list[StorageCost]:
    """One for each dtype, of the space itself or of the newest version with the same weights.

    Raises:
        NotFound: the version has no such space.
    """
    signature = signature_of(version, space)
    with house.registry.read() as session:
        alike = versions.of_same_weights(session, version)
        measured = evaluations.ne_of_storages(session, version, space)
    stored: dict[Dtype, Version] = {}
    for one in (*alike, version):  # later ones win, and the version that was asked for above all
        if space in one.signature.spaces:
            stored[one.signature.spaces[space].dtype] = one
    return [
        _cost(
            f"{version.reference}/{space}",
            Storage(dtype, signature.dim),
            None if dtype not in stored else f"{stored[dtype].reference}/{space}",
            None if dtype not in stored else _snapshot(house, stored[dtype], space),
            [one for one in measured if one.storage == dtype],
            embedded=signature.entity is not None,
        )
        for dtype in get_args(Dtype)
    ]


def _snapshot(house: Platform, version: Version, space: str) -> Snapshot | None:
    with house.store.read() as session:
        try:
            found = snapshots.list_snapshots(session, version.foundation, version.version, space)
        except NotFound:  # nobody has asked for this space yet, so the store does not know it
            return None
    return found[0] if found else None


def _cost(
    asked: str,
    storage: Storage,
    space: str | None,
    snapshot: Snapshot | None,
    ne: list[NeCost],
    *,
    embedded: bool,
) -> StorageCost:
    dtype = storage.dtype
    compression = None if snapshot is None else snapshot.compression
    unmeasured = []
    if dtype in _COMPRESSED and compression is None:
        unmeasured.append(_no_error(asked, dtype, space, embedded=embedded))
    if dtype != "float32" and not ne:
        unmeasured.append(_no_ne(space or asked, dtype))
    return StorageCost(
        dtype=dtype,
        row_bytes=storage.row_bytes,
        space=space,
        snapshot=None if snapshot is None else snapshot.snapshot,
        rows=None if snapshot is None else snapshot.rows,
        bytes=None if snapshot is None else snapshot.bytes,
        compression=compression,
        ne=ne,
        unmeasured=unmeasured,
    )


def _no_error(asked: str, dtype: Dtype, space: str | None, *, embedded: bool) -> str:
    if not embedded:
        return f"Error and recall are measured by embed jobs, and no job embeds {asked}."
    if space is None:
        mend = f"publish the same weights with storage_dtype {dtype} and embed the space"
    else:
        mend = f"bedplate spaces embed {space}"
    return f"Error and recall were not measured: {mend}."


def _no_ne(space: str, dtype: Dtype) -> str:
    finer = "float32" if dtype == "float16" else "float32 or float16"
    return (
        f"NE was not measured: no expert was evaluated on {dtype} and on {finer} of these vectors. Record "
        f"both (POST /v1/evaluations, client.evaluations.record) with reads that name {space} and the "
        "storage, for the same surface, task, window, variant and seed."
    )
