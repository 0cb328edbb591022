"""The impression log on both databases: sealed once, whatever is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select

from bedplate.errors import Conflict, InternalError
from bedplate_store import impressions, log_segments
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog, ImpressionRecord, SealReport
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.records import LogSegmentRow
from bedplate_store.times import instant

Make = Callable[..., ImpressionRecord]
ALWAYS = (instant(0), instant(2**55))


@pytest.fixture
def log(spool: Path, objects: ObjectStore, database: Database) -> ImpressionLog:
    return ImpressionLog(spool, objects, database)


def read(log: ImpressionLog, objects: ObjectStore, database: Database, **given: Any) -> pa.Table:
    window, versions = given.pop("window", ALWAYS), given.pop("versions", ["core@1", "core@2"])
    surface = given.pop("surface", "feed")
    return pa.concat_tables(impressions.scan(database, objects, surface, window, versions, **given))


def served(
    log: ImpressionLog, objects: ObjectStore, database: Database, **given: Any
) -> list[tuple[str, str]]:
    table = read(log, objects, database, **given)
    return [*zip(table["request_id"].to_pylist(), table["item"].to_pylist(), strict=True)]


def vectors(table: pa.Table, version: str) -> bytes:
    column = table[f"tae:{version}"].combine_chunks()
    return bytes(column.flatten().to_numpy().tobytes())


def test_what_was_served_is_read_back_bit_for_bit(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    scores = np.array([0.5, np.nan, -1], np.float32)
    first = make_record("r1", served_at_us=5, expert="ranker@3", scores=scores)
    second = make_record("r2", served_at_us=4, items=["x"])
    log.append_many([first, second])
    assert log.seal(now) == SealReport(segments=1, requests=2, rows=4)
    table = read(log, objects, database)
    assert table["request_id"].to_pylist() == ["r2", "r1", "r1", "r1"]
    assert table["item"].to_pylist() == ["x", "i1", "i2", "i3"]
    assert table["position"].to_pylist() == [0, 0, 1, 2]
    assert table["served_at"].to_pylist() == [instant(4)] + [instant(5)] * 3
    assert table["expert"].to_pylist() == [None] + ["ranker@3"] * 3
    assert table["score"].null_count == 1
    assert table["score"].combine_chunks()[1:].to_numpy(zero_copy_only=False).tobytes() == scores.tobytes()
    for version in ("core@1", "core@2"):
        expected = second.tae[version].tobytes() + first.tae[version].tobytes()
        assert vectors(table, version) == expected
        assert table[f"prediction:{version}"].to_pylist()[1:] == first.predictions[version].tolist()


def test_the_same_request_is_logged_once(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    spool: Path,
    now: datetime,
    make_record: Make,
) -> None:
    record = make_record("r1", items=["a"])
    log.append_many([record, record])
    log.append(record)
    other_process = ImpressionLog(spool, objects, database)
    other_process.append(record)  # cannot know yet
    assert log.seal(now) == SealReport(segments=1, requests=1, rows=1, duplicates=1)
    for writer in (log, other_process, ImpressionLog(spool, objects, database)):
        writer.append(record)
    assert log.seal(now) == SealReport()
    assert served(log, objects, database) == [("r1", "a")]


def test_a_request_id_with_other_content_is_a_conflict(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    spool: Path,
    now: datetime,
    make_record: Make,
) -> None:
    record = make_record("r1", items=["a"])
    changed = replace(record, served_at_us=record.served_at_us + 1)
    with pytest.raises(Conflict):
        log.append_many([record, changed])
    log.append(record)
    with pytest.raises(Conflict):
        log.append_many([make_record("r0"), changed])
    other_process = ImpressionLog(spool, objects, database)
    other_process.append(changed)  # cannot know yet
    assert log.seal(now) == SealReport(segments=1, requests=1, rows=1, conflicts=[("feed", "r1")])
    with pytest.raises(Conflict, match="'r1' of 'feed' is logged already"):
        other_process.append(replace(record, user="somebody else"))
    assert served(log, objects, database) == [("r1", "a")]


def test_a_request_id_on_two_surfaces_is_two_requests(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    spool: Path,
    now: datetime,
    make_record: Make,
) -> None:
    feed, reels = make_record("r1", items=["a"]), make_record("r1", surface="reels", items=["b", "c"])
    log.append_many([feed, reels])
    log.append(reels)
    assert log.seal(now) == SealReport(segments=2, requests=2, rows=3)
    other_process = ImpressionLog(spool, objects, database)
    other_process.append_many([reels, feed])
    assert log.seal(now) == SealReport()
    with pytest.raises(Conflict, match="'r1' of 'reels' is logged already"):
        other_process.append(replace(reels, user="somebody else"))
    other_process.append(make_record("r1", surface="stories", items=["d"]))
    assert log.seal(now).requests == 1
    found = {name: served(log, objects, database, surface=name) for name in ("feed", "reels", "stories")}
    assert found == {
        "feed": [("r1", "a")],
        "reels": [("r1", "b"), ("r1", "c")],
        "stories": [("r1", "d")],
    }


def test_surfaces_and_sets_of_versions_lie_in_segments_of_their_own(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append_many(
        [
            make_record("r1"),
            make_record("r2", versions=("core@1",)),
            make_record("r3", surface="reels"),
            make_record("r4", versions=()),
            make_record("r5", dim=8),
        ]
    )
    assert log.seal(now).segments == 5
    with database.read() as session:
        rows = session.scalars(select(LogSegmentRow).order_by(LogSegmentRow.sequence)).all()
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5]
    assert {(row.surface, *row.versions) for row in rows} == {
        ("feed",),
        ("feed", "core@1"),
        ("feed", "core@1", "core@2"),
        ("reels", "core@1", "core@2"),
    }
    for row in rows:
        assert objects.size(row.object_key) == row.bytes
        assert row.object_key == f"log/{row.surface}/{row.sha256}.arrow"
    only = [*log_segments.scan(database, objects, "reels", ALWAYS, ["core@2", "core@9"])]
    assert [table.column_names[-2:] for table in only] == [["tae:core@2", "prediction:core@2"]]
    assert [*log_segments.scan(database, objects, "feed", ALWAYS, [], up_to_sequence=0)] == []


def test_a_window_is_half_open(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append_many([make_record(f"r{time}", served_at_us=time, items=["a"]) for time in (1, 2, 3, 4)])
    log.seal(now)
    table = read(log, objects, database, window=(instant(2), instant(4)))
    assert table["request_id"].to_pylist() == ["r2", "r3"]


@pytest.mark.parametrize("broken", ["_register", "write_segments", "unlink"])
def test_a_seal_that_was_interrupted_is_done_again(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    spool: Path,
    now: datetime,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    log.append_many([make_record("r1", items=["a"]), make_record("r2", items=["b"])])
    unlink = Path.unlink

    def die(*arguments: Any, **options: Any) -> None:
        if broken == "unlink" and arguments[0].parent != spool:
            return unlink(*arguments, **options)  # the object store removes files of its own
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path if broken == "unlink" else impressions, broken, die)
        with pytest.raises(KeyboardInterrupt):
            log.seal(now)
    log.append(make_record("r3", items=["c"]))
    log.seal(now)
    assert served(log, objects, database) == [("r1", "a"), ("r2", "b"), ("r3", "c")]
    assert len([*objects.list("log/")]) == 2


def test_a_damaged_file_is_named_and_kept_and_stops_nothing_else(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    spool: Path,
    now: datetime,
    make_record: Make,
) -> None:
    log.append_many([make_record("r1"), make_record("r2")])
    (path,) = spool.glob("*.open")
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    ImpressionLog(spool, objects, database).append(make_record("r3", items=["c"]))
    with pytest.raises(InternalError, match=r"damaged at byte 0: .* kept as .*\.damaged"):
        log.seal(now)
    assert served(log, objects, database) == [("r3", "c")]
    assert [kept.read_bytes() for kept in spool.glob("*.damaged")] == [bytes(data)]
    assert log.seal(now) == SealReport()


def test_a_damaged_segment_is_an_error(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append(make_record("r1"))
    log.seal(now)
    (key,) = objects.list("log/")
    objects.put(key, objects.get(key)[:-1] + b"?")
    with pytest.raises(InternalError, match="is damaged"):
        read(log, objects, database)
