"""Spool files: taken over while their writers go on, and whole writes or none."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate.errors import StorageFull
from bedplate_store.impression_spool import SpoolWriter, closed_files, set_aside

NOW = datetime(2200, 1, 1, tzinfo=UTC)


def drained(directory: Path) -> bytes:
    with closed_files(directory, NOW) as paths:
        data = b"".join(path.read_bytes() for path in paths)
        for path in paths:
            path.unlink()
    return data


def test_a_writer_goes_on_in_a_new_file(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(b"one ")
    writer.append(b"two ")
    assert drained(tmp_path) == b"one two "
    assert drained(tmp_path) == b""
    writer.append(b"three")
    writer.close()
    writer.append(b" four")
    assert drained(tmp_path) == b"three four"


def test_files_too_small_and_too_young_are_left(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(b"1234")
    begun = datetime.now(UTC)
    for age_seconds, min_bytes, taken in ((5, 9, 0), (5, 4, 1), (61, 9, 1)):
        moment = begun + timedelta(seconds=age_seconds)
        with closed_files(tmp_path, moment, min_bytes=min_bytes, max_age_seconds=60) as paths:
            assert len(paths) == taken
            for path in paths:
                path.rename(path.with_suffix(".open"))


def test_nothing_is_lost_between_many_writers_and_sealers(tmp_path: Path) -> None:
    shared = SpoolWriter(tmp_path)
    own = [SpoolWriter(tmp_path) for _ in range(2)]
    done = threading.Event()
    collected: list[bytes] = []

    def write(writer: SpoolWriter, name: int) -> None:
        for number in range(100):
            writer.append(b"%d:%d;" % (name, number))

    def seal() -> None:
        while not done.is_set():
            collected.append(drained(tmp_path))

    sealers = [threading.Thread(target=seal) for _ in range(2)]
    writers = [
        threading.Thread(target=write, args=(writer, name))
        for name, writer in enumerate([shared, shared, *own])
    ]
    for thread in [*sealers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in sealers:
        thread.join()
    collected.append(drained(tmp_path))
    records = b"".join(collected).split(b";")[:-1]
    assert sorted(records) == sorted(b"%d:%d" % (name, number) for name in range(4) for number in range(100))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append(b"whole")
    really_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: really_write(file, data[:2]))
        with pytest.raises(StorageFull, match="is full"):
            writer.append(b"half")

        def full(_file: int, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        with pytest.raises(StorageFull, match="is full"):
            writer.append(b"none")
    writer.append(b" again")
    assert drained(tmp_path) == b"whole again"


def test_a_full_file_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate_store.impression_spool._LARGEST_FILE_BYTES", 4)
    writer = SpoolWriter(tmp_path)
    for data in (b"12", b"345", b"6"):
        writer.append(data)
    with closed_files(tmp_path, NOW) as paths:
        assert [path.read_bytes() for path in paths] == [b"12345", b"6"]


def test_a_damaged_file_is_kept_out_of_the_way(tmp_path: Path) -> None:
    SpoolWriter(tmp_path).append(b"damaged")
    with closed_files(tmp_path, NOW) as paths:
        aside = set_aside(paths[0])
    assert aside.read_bytes() == b"damaged"
    assert drained(tmp_path) == b""
