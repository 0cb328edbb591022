"""The impression log: what was served, down to the bytes of the embeddings it was ranked with.

A record is appended to a spool file before its answer leaves, so it survives the death of the process, and is
later sealed into immutable segments that training sets read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import insert, select

from bedplate.errors import Conflict, InternalError
from bedplate_store import sequences
from bedplate_store.database import Database, ReadSession, WriteSession
from bedplate_store.impression_records import (
    ImpressionRecord,
    decode_record,
    encode_record,
    frame,
    read_frames,
    record_digest,
)
from bedplate_store.impression_spool import SpoolWriter, closed_files, set_aside
from bedplate_store.log_segments import SealedSegment, scan, write_segments
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.records import LoggedRequestRow, LogSegmentRow
from bedplate_store.times import microseconds

__all__ = ["ImpressionLog", "ImpressionRecord", "SealReport", "scan"]

_REMEMBERED_REQUESTS = 100_000
_IDS_PER_QUERY = 5_000
_RequestKey = tuple[str, str]
"""(surface, request id): surfaces have different owners, so an id is only ever one surface's own."""


@dataclass(frozen=True, slots=True)
class SealReport:
    """What one call sealed.

    Attributes:
        segments, requests, rows: newly in the log.
        duplicates: records that were in the log already.
        conflicts: (surface, request id) of requests that were spooled by different processes with different
            content; the first one sealed is in the log, the other is not.
    """

    segments: int = 0
    requests: int = 0
    rows: int = 0
    duplicates: int = 0
    conflicts: list[_RequestKey] = field(default_factory=list)


class ImpressionLog:
    """Appends to the spool in ``spool_dir`` and seals it; safe between threads and between processes.

    Nothing is opened until the first append: a process that only seals needs no spool file of its own.
    """

    def __init__(self, spool_dir: Path, objects: ObjectStore, database: Database) -> None:
        self._spool_dir = spool_dir
        self._objects = objects
        self._database = database
        self._writer = SpoolWriter(spool_dir)
        self._remembered: OrderedDict[_RequestKey, str] = OrderedDict()
        self._lock = threading.Lock()

    def append(self, record: ImpressionRecord) -> None:
        """Log one request; see :meth:`append_many`."""
        self.append_many([record])

    def append_many(self, records: Sequence[ImpressionRecord]) -> None:
        """Log requests in one write. When this returns they survive kill -9 of the process.

        A request that is logged already is not logged again. The same request id on another surface is
        another request.

        Raises:
            Conflict: a request of the surface is logged with different content; nothing of the call was
                logged.
            Unavailable: the spool cannot be written; nothing of the call was logged.
        """
        payloads = [encode_record(record) for record in records]
        digests: dict[_RequestKey, tuple[str, bytes]] = {}
        for record, payload in zip(records, payloads, strict=True):
            digest = record_digest(payload)
            if digests.setdefault(_key(record), (digest, payload))[0] != digest:
                raise _conflict(_key(record))
        with self._database.read() as session:
            sealed = _sealed_digests(session, digests)
        with self._lock:
            fresh: dict[_RequestKey, tuple[str, bytes]] = {}
            for key, (digest, payload) in digests.items():
                known = self._remembered.get(key) or sealed.get(key)
                if known is None:
                    fresh[key] = (digest, payload)
                elif known != digest:
                    raise _conflict(key)
            if fresh:
                self._writer.append(b"".join(frame(payload) for _, payload in fresh.values()))
                self._remember({key: digest for key, (digest, _) in fresh.items()})

    def seal(self, now: datetime, *, min_bytes: int = 0, max_age_seconds: float = 0.0) -> SealReport:
        """Turn what every process has spooled into segments; writers go on meanwhile, in new files.

        Only files that have ``min_bytes`` or are ``max_age_seconds`` old are taken (by default all), so that
        a frequent caller does not make many small segments. Called again after being killed at any point, it
        ends with the same log. Of two callers the second waits for the first.

        Raises:
            InternalError: a spool file is damaged; the detail names file and offset. It is set aside, whole,
                after everything else was sealed.
        """
        report = SealReport()
        damaged: list[InternalError] = []
        with closed_files(
            self._spool_dir, now, min_bytes=min_bytes, max_age_seconds=max_age_seconds
        ) as paths:
            for path in paths:
                try:
                    records = _read_file(path)
                except InternalError as error:
                    aside = set_aside(path)
                    damaged.append(InternalError(f"{error.detail} It was kept as {aside}.", **error.context))
                    continue
                report = self._seal_records(records, report, now)
                path.unlink()
        if damaged:
            raise damaged[0]
        return report

    def close(self) -> None:
        """Release the spool file. What is in it stays and is sealed by whoever seals next."""
        self._writer.close()

    def _remember(self, digests: dict[_RequestKey, str]) -> None:
        self._remembered.update(digests)
        while len(self._remembered) > _REMEMBERED_REQUESTS:
            self._remembered.popitem(last=False)

    def _seal_records(
        self,
        records: dict[_RequestKey, list[tuple[str, ImpressionRecord]]],
        report: SealReport,
        now: datetime,
    ) -> SealReport:
        while True:
            with self._database.read() as session:
                sealed = _sealed_digests(session, records)
            fresh, duplicates, conflicts = _sort_out(records, sealed)
            segments = write_segments(self._objects, [record for _, record in fresh.values()])
            digests = {key: digest for key, (digest, _) in fresh.items()}
            if not self._database.transact(
                partial(_register_if_first, segments=segments, digests=digests, now=now)
            ):
                continue
            return replace(
                report,
                segments=report.segments + len(segments),
                requests=report.requests + len(fresh),
                rows=report.rows + sum(segment.rows for segment in segments),
                duplicates=report.duplicates + duplicates,
                conflicts=report.conflicts + conflicts,
            )


def _key(record: ImpressionRecord) -> _RequestKey:
    return record.surface, record.request_id


def _read_file(path: Path) -> dict[_RequestKey, list[tuple[str, ImpressionRecord]]]:
    """The records of a spool file by request, each with its digest."""
    records: dict[_RequestKey, list[tuple[str, ImpressionRecord]]] = {}
    for payload in read_frames(path.read_bytes(), str(path)):
        record = decode_record(payload)
        records.setdefault(_key(record), []).append((record_digest(payload), record))
    return records


def _sort_out(
    records: dict[_RequestKey, list[tuple[str, ImpressionRecord]]], sealed: dict[_RequestKey, str]
) -> tuple[dict[_RequestKey, tuple[str, ImpressionRecord]], int, list[_RequestKey]]:
    """Which records are new, how many are repetitions, and whose content differs from the first one's."""
    fresh: dict[_RequestKey, tuple[str, ImpressionRecord]] = {}
    duplicates = 0
    conflicts: list[_RequestKey] = []
    for key, candidates in records.items():
        winner = sealed.get(key)
        for digest, record in candidates:
            if winner is None:
                winner = digest
                fresh[key] = (digest, record)
            elif digest == winner:
                duplicates += 1
            else:
                conflicts.append(key)
    return fresh, duplicates, conflicts


def _sealed_digests(session: ReadSession, requests: Iterable[_RequestKey]) -> dict[_RequestKey, str]:
    by_surface: dict[str, list[str]] = {}
    for surface, request_id in requests:
        by_surface.setdefault(surface, []).append(request_id)
    found: dict[_RequestKey, str] = {}
    for surface, request_ids in by_surface.items():
        for start in range(0, len(request_ids), _IDS_PER_QUERY):
            rows = session.execute(
                select(LoggedRequestRow.request_id, LoggedRequestRow.digest).where(
                    LoggedRequestRow.surface == surface,
                    LoggedRequestRow.request_id.in_(request_ids[start : start + _IDS_PER_QUERY]),
                )
            )
            found.update(((surface, request_id), digest) for request_id, digest in rows)
    return found


def _register_if_first(
    session: WriteSession, *, segments: list[SealedSegment], digests: dict[_RequestKey, str], now: datetime
) -> bool:
    """False, and nothing done: another spool directory's sealer was faster with one of the requests."""
    first = sequences.advance(session, "log_segment", len(segments)) if segments else 0
    if _sealed_digests(session, digests):
        session.rollback()
        return False
    _register(session, segments, digests, first, now)
    return True


def _register(
    session: WriteSession,
    segments: list[SealedSegment],
    digests: dict[_RequestKey, str],
    first: int,
    now: datetime,
) -> None:
    requests = []
    for sequence, segment in enumerate(segments, start=first):
        session.add(
            LogSegmentRow(
                sequence=sequence,
                surface=segment.surface,
                object_key=segment.object_key,
                sha256=segment.sha256,
                served_first=segment.served_first_us,
                served_last=segment.served_last_us,
                rows=segment.rows,
                requests=len(segment.request_ids),
                bytes=segment.bytes,
                versions=segment.versions,
                sealed_at=microseconds(now),
            )
        )
        requests += [
            {
                "surface": segment.surface,
                "request_id": request_id,
                "digest": digests[segment.surface, request_id],
                "log_sequence": sequence,
            }
            for request_id in segment.request_ids
        ]
    session.flush()
    if requests:
        session.connection().execute(insert(LoggedRequestRow), requests)


def _conflict(key: _RequestKey) -> Conflict:
    surface, request_id = key
    return Conflict(
        f"Request {request_id!r} of {surface!r} is logged already, with different content; use a request id "
        "of a surface once only.",
        request=request_id,
    )
