"""Whole spaces: as one Arrow stream, and as the files they lie in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from bedplate.codecs import (
    ARROW,
    HEADER_DIM,
    HEADER_DTYPE,
    HEADER_ROWS,
    HEADER_SEQUENCE,
    HEADER_SNAPSHOT,
    HEADER_VERSION,
    ScanInfo,
    encode_scan,
    scan_length,
    scan_schema,
)
from bedplate.errors import InvalidRequest
from bedplate.wire.store import SpaceFile, SpaceFiles, SpaceSegment
from bedplate_services.auth import Caller
from bedplate_services.composition import Platform
from bedplate_services.openapi import arrow_answer, problem_responses
from bedplate_services.routes.common import House, PathName, signed_url, stored_path
from bedplate_services.routes.spaces import Reference
from bedplate_services.streams import Chunk, ahead
from bedplate_store import space_scans
from bedplate_store.segment_files import FileInfo, SegmentInfo, object_key
from bedplate_store.shard_routing import RemoteSpace
from bedplate_store.space_reader import SpaceReader
from bedplate_store.space_scans import SpaceScan
from bedplate_store.spaces import SpaceKey

router = APIRouter(prefix="/v1/spaces", tags=["bulk reads"])
_BATCH_BYTES = 4 << 20
_BATCH_BYTES_MAX = 64 << 20
_NUMBER_MAX = 2**63 - 1

Snapshot = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="with `sequence`: this state")]
Sequence = Annotated[int | None, Query(ge=0, le=_NUMBER_MAX, description="with `snapshot`: this state")]
Columns = Annotated[Literal["key,vector", "key", "vector"], Query(description="what of each row is sent")]
Shard = Annotated[int, Query(ge=0, le=65_535, description="which of the `shards`, from 0")]
Shards = Annotated[int, Query(ge=1, le=65_536, description="into how many equal parts the rows are cut")]
StartRow = Annotated[int, Query(ge=0, le=_NUMBER_MAX, description="rows of the shard to pass over")]
BatchRows = Annotated[
    int | None, Query(ge=1, le=1 << 20, description="rows of a record batch; at most 64 MiB of vectors")
]


@router.get(
    "/{reference}/{space}/scan",
    summary="Stream all vectors of a space",
    response_class=StreamingResponse,
    responses={
        **arrow_answer("columns key and vector; its metadata `bedplate.*` name the state and the rows"),
        **problem_responses(409, 410),
    },
)
async def scan_space(
    house: House,
    caller: Caller,
    reference: Reference,
    space: PathName,
    columns: Columns = "key,vector",
    shard: Shard = 0,
    shards: Shards = 1,
    start_row: StartRow = 0,
    batch_rows: BatchRows = None,
    snapshot: Snapshot = None,
    sequence: Sequence = None,
) -> StreamingResponse:
    """One state of the space in an order of its own: every live row once. The headers name the state; given
    back as `snapshot` and `sequence` they give the same rows in the same order, so that several shards, or a
    stream that goes on at `start_row` after it broke off, belong together. 410 when that state is gone.
    """
    _check_state(snapshot, sequence)
    located = await house.directory.locate(reference, space)
    reader = located.reader

    def begin() -> tuple[ScanInfo, int, Iterator[list[Chunk]]]:
        scan = _scan(house, reader, snapshot, sequence)
        part = scan.order.shard(shard, shards)
        if start_row > len(part):
            raise InvalidRequest(f"start_row is {start_row}; the shard has {len(part)} rows.", rows=len(part))
        rows = part[start_row:]
        reference = f"{located.version}/{located.space}"
        info = ScanInfo(reference, scan.snapshot, scan.sequence, rows.start, len(rows))
        schema = scan_schema(info, reader.key_type, reader.dim, reader.storage.answers, columns.split(","))
        step = _step(batch_rows, reader.dim * np.dtype(reader.storage.answers).itemsize)
        length = scan_length(schema, scan.sizes(rows, step))
        return info, length, encode_scan(schema, scan.batches(rows, step, schema))

    info, length, chunks = await run_in_threadpool(begin)
    headers = {
        "content-length": str(length),
        HEADER_VERSION: located.version,
        HEADER_SNAPSHOT: str(info.snapshot),
        HEADER_SEQUENCE: str(info.sequence),
        HEADER_DIM: str(reader.dim),
        HEADER_DTYPE: reader.storage.answers,
        HEADER_ROWS: str(info.rows),
    }
    return StreamingResponse(ahead(chunks), headers=headers, media_type=ARROW)


def _check_state(snapshot: int | None, sequence: int | None) -> None:
    if (snapshot is None) != (sequence is None):
        raise InvalidRequest("snapshot and sequence together name a state: give both or neither.")


def _scan(
    house: Platform, reader: SpaceReader | RemoteSpace, snapshot: int | None, sequence: int | None
) -> SpaceScan:
    if isinstance(reader, SpaceReader) and (
        snapshot is None or (snapshot, sequence) == (reader.snapshot, reader.sequence)
    ):
        return SpaceScan.of(reader)
    # Of a space that store nodes serve, too: its files are mapped for the scan alone.
    state = space_scans.find_state(house.store, reader.space, snapshot, sequence)
    return space_scans.open_scan(house.objects, house.settings.cache_dir / "segments", state)


def _step(batch_rows: int | None, row_bytes: int) -> int:
    if batch_rows is None:
        return max(1, _BATCH_BYTES // row_bytes)
    return max(1, min(batch_rows, _BATCH_BYTES_MAX // row_bytes))


@router.get(
    "/{reference}/{space}/files",
    summary="List the files of a space, with signed URLs",
    responses=problem_responses(409, 410),
)
def list_space_files(
    house: House,
    caller: Caller,
    reference: Reference,
    space: PathName,
    snapshot: Snapshot = None,
    sequence: Sequence = None,
) -> SpaceFiles:
    """The segments of one state of the space, oldest first: its snapshot's and those of the writes above it.
    The URLs need no token and last an hour; they take `Range`. docs/format.md says what is in the files.
    """
    _check_state(snapshot, sequence)
    foundation, version = house.directory.resolve(reference)
    key = SpaceKey(foundation, version, space)
    state = space_scans.find_state(house.store, key, snapshot, sequence)
    segments = space_scans.segment_manifests(house.objects, state)
    return SpaceFiles(
        reference=str(key),
        snapshot=state.snapshot,
        sequence=state.sequence,
        dim=state.dim,
        dtype=state.dtype,
        key_type=state.key_type,
        segments=[_segment(house, info, files) for info, files in segments],
    )


def _segment(house: Platform, info: SegmentInfo, files: dict[str, FileInfo]) -> SpaceSegment:
    listed = []
    for name, file in sorted(files.items()):
        key = object_key(info.digest, name)
        listed.append(
            SpaceFile(
                name=name,
                bytes=file.bytes,
                sha256=file.sha256,
                url=signed_url(house, key),
                path=stored_path(house, key),
            )
        )
    return SpaceSegment(digest=info.digest, rows=info.rows, tombstones=info.tombstones, files=listed)
