"""Whole spaces over REST: the Arrow stream, its shards and its going on, and the signed files."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.places import FILES as ON_FILES

from bedplate.codecs import ScanBatch, ScanDecoder, encode_keys_arrow
from bedplate.segment_files import keys_of, unpack
from bedplate.stored_vectors import Storage
from bedplate.wire.store import IndexSpecification
from bedplate_store import collection, snapshots
from bedplate_store.spaces import SpaceKey

from .conftest import World

SCAN, FILES = "/v1/spaces/core@1/item/scan", "/v1/spaces/core@1/item/files"


def vectors(first: int, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(first, first + 4 * rows, dtype=np.float32).reshape(rows, 4)


def delete(world: World, keys: Any, space: str = "core@1/item") -> None:
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    world.ok(
        "POST",
        f"/v1/spaces/{space}/delete",
        "core-team",
        content=encode_keys_arrow(keys),
        headers=headers,
    )
    world.show(SpaceKey.parse(space))


def compact(world: World, space: str = "item") -> None:
    """What the compaction job ends with."""
    platform = world.platform
    key = SpaceKey("core", 1, space)
    with platform.store.read() as session:
        through = snapshots.current_sequence(session, *key)
    prepared = snapshots.prepare(
        platform.store,
        platform.objects,
        platform.settings.cache_dir / "segments",
        key,
        [],
        IndexSpecification(kind="flat"),
        covers_sequence=through,
    )
    with platform.store.write() as session:
        snapshots.publish(session, prepared, objects=platform.objects, job=None, now=world.clock())
    world.show(key)
    platform.readers.open_ahead()
    platform.directory.forget()


BY_THE_API = pytest.mark.parametrize("engines", [ON_FILES], indirect=True)
"""For files that the API itself hands out, because no S3 server does."""


@pytest.fixture
def filled(world: World) -> World:
    """core@1/item: 100 rows in a snapshot, of which 3 were replaced and 2 deleted, and 4 new ones."""
    world.publish()
    world.upsert("core@1/item", np.arange(100) * 10, vectors(0, 100))
    compact(world)
    world.upsert("core@1/item", np.array([0, 500, 990, 5, 15, 25, 35]), vectors(10_000, 7))
    delete(world, np.array([10, 510, 77]))
    return world


EXPECTED = dict(zip(range(0, 1000, 10), vectors(0, 100), strict=True))
EXPECTED |= dict(zip([0, 500, 990, 5, 15, 25, 35], vectors(10_000, 7), strict=True))
del EXPECTED[10], EXPECTED[510]


def scan(world: World, **params: Any) -> tuple[dict[Any, Any], Any, list[ScanBatch]]:
    """The rows by key, the headers, the batches; a key that came twice fails."""
    response = world.call("GET", SCAN, "feed-team", params=params)
    assert response.status_code == 200, response.text
    decoder = ScanDecoder()
    batches = list(decoder.feed(response.content))
    assert decoder.ended
    assert int(response.headers["content-length"]) == len(response.content)
    found: dict[Any, Any] = {}
    for batch in batches:
        assert batch.keys is not None
        for index, key in enumerate(batch.keys):
            assert key not in found
            found[key] = None if batch.vectors is None else batch.vectors[index]
    return found, response.headers, batches


def same(found: dict[Any, Any], expected: dict[Any, Any]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("batch_rows", [1, 7, 64, None])
def test_a_scan_gives_every_live_row_once(filled: World, batch_rows: int | None) -> None:
    found, headers, batches = scan(filled, **({} if batch_rows is None else {"batch_rows": batch_rows}))
    assert same(found, EXPECTED)
    assert headers["x-bedplate-version"] == "core@1"
    assert headers["x-bedplate-snapshot"] == "1"
    assert headers["x-bedplate-sequence"] == "3"
    assert headers["x-bedplate-rows"] == str(len(EXPECTED))
    assert [batch.first_row for batch in batches] == list(
        np.cumsum([0] + [len(batch) for batch in batches])[:-1]
    )


def test_any_arrow_library_reads_it(filled: World) -> None:
    response = filled.call("GET", SCAN, "feed-team")
    table = pa.ipc.open_stream(response.content).read_all()
    assert table.num_rows == len(EXPECTED)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 4)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["bedplate.reference"] == "core@1/item"
    assert metadata["bedplate.snapshot"] == "1"


def test_string_keys_in_float16(world: World) -> None:
    world.publish()
    keys = ["", *(f"k{number}" for number in range(50)), "schön", "日本"][1:]
    world.upsert("core@1/user", keys, vectors(0, len(keys)).astype(np.float16))
    compact(world, "user")
    world.upsert("core@1/user", ["k7", "new"], vectors(500, 2).astype(np.float16))
    delete(world, ["k9"], "core@1/user")
    for batch_rows in (1, 3, 1000):
        response = world.call("GET", "/v1/spaces/core@1/user/scan", params={"batch_rows": batch_rows})
        assert int(response.headers["content-length"]) == len(response.content)
        batches = list(ScanDecoder().feed(response.content))
        found = [key for batch in batches for key in batch.keys or []]
        assert sorted(found) == sorted({*keys, "new"} - {"k9"})
        assert {batch.vectors.dtype for batch in batches if batch.vectors is not None} == {
            np.dtype("float16")
        }


@pytest.mark.parametrize("shards", [1, 2, 5, 200])
def test_shards_are_disjoint_and_complete(filled: World, shards: int) -> None:
    found: dict[Any, Any] = {}
    for shard in range(shards):
        part, _, _ = scan(filled, shard=shard, shards=shards, snapshot=1, sequence=3)
        assert not part.keys() & found.keys()
        found |= part
    assert same(found, EXPECTED)


def test_a_scan_goes_on_where_it_broke_off_whatever_happened_since(filled: World) -> None:
    whole = list(scan(filled)[0])
    filled.upsert("core@1/item", np.array([20, 9999]), vectors(0, 2))
    compact(filled)
    rest, headers, _ = scan(filled, snapshot=1, sequence=3, start_row=40)
    assert list(rest) == whole[40:]
    assert headers["x-bedplate-snapshot"] == "1"
    assert headers["x-bedplate-sequence"] == "3"
    newest, headers, _ = scan(filled)
    assert 9999 in newest
    assert headers["x-bedplate-snapshot"] == "2"


def test_a_collected_state_is_gone(filled: World) -> None:
    filled.upsert("core@1/item", np.array([20]), vectors(0, 1))
    compact(filled)
    filled.clock.advance(7200)
    platform = filled.platform
    collection.collect(platform.store, platform.objects, now=filled.clock(), grace=timedelta(hours=1))
    for path in (SCAN, FILES):
        problem = filled.problem("GET", path, params={"snapshot": 1, "sequence": 3})
        assert problem["code"] == "snapshot_gone"
        assert problem["status"] == 410
        assert "start again" in problem["detail"]


def test_only_the_keys(filled: World) -> None:
    found, _, batches = scan(filled, columns="key")
    assert found.keys() == EXPECTED.keys()
    assert batches[0].vectors is None


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"shard": 2, "shards": 2}, 422),
        ({"start_row": 10_000}, 422),
        ({"snapshot": 1}, 422),
        ({"sequence": 1}, 422),
        ({"columns": "vector,key,price"}, 422),
        ({"batch_rows": 0}, 422),
        ({"snapshot": 9, "sequence": 3}, 404),
        ({"snapshot": 1, "sequence": 99}, 404),
        ({"snapshot": 1, "sequence": 0}, 404),
    ],
)
def test_bad_questions_are_told_what_mends_them(filled: World, params: dict[str, Any], status: int) -> None:
    assert filled.problem("GET", SCAN, params=params)["status"] == status


def test_an_empty_space_is_not_ready(world: World) -> None:
    world.publish()
    for path in (SCAN, FILES):
        assert world.problem("GET", path)["code"] == "space_not_ready"


def test_a_space_of_writes_alone(world: World) -> None:
    world.publish()
    world.upsert("core@1/item", np.array([3, 1, 2]), vectors(0, 3))
    delete(world, np.array([1]))
    assert set(scan(world)[0]) == {2, 3}
    assert list(scan(world, snapshot=0, sequence=1)[0]) == [1, 2, 3]
    delete(world, np.array([2, 3]))
    found, headers, batches = scan(world)
    assert (found, batches, headers["x-bedplate-rows"]) == ({}, [], "0")


def test_the_files_of_a_space(filled: World) -> None:
    document = filled.ok("GET", FILES, "feed-team")
    assert (document["reference"], document["snapshot"], document["sequence"]) == ("core@1/item", 1, 3)
    base, upserted, deleted = document["segments"]
    assert (base["rows"], upserted["rows"], deleted["tombstones"]) == (100, 7, 3)
    file = next(one for one in base["files"] if one["name"] == "vectors")
    whole = filled.fetch(file["url"])
    assert whole.status_code == 200
    assert whole.headers["accept-ranges"] == "bytes"
    assert np.array_equal(np.frombuffer(whole.content, "<f4").reshape(100, 4), vectors(0, 100))


def test_the_file_of_a_write_holds_all_its_columns(filled: World) -> None:
    _, upserted, deleted = filled.ok("GET", FILES)["segments"]
    for segment in (upserted, deleted):
        (file,) = segment["files"]
        assert file["name"] == "packed"
        data = filled.fetch(file["url"]).content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        manifest, columns = unpack(np.frombuffer(data, np.uint8))
        assert (manifest["rows"], manifest["tombstones"]) == (segment["rows"], segment["tombstones"])
        rows = Storage("float32", 4).of_bytes(columns["vectors"])
        keys = keys_of(columns["keys"], segment["rows"], "int64")
        gone = keys_of(columns["tombstones"], segment["tombstones"], "int64")
        assert (len(keys), len(rows), len(gone)) == (segment["rows"], segment["rows"], segment["tombstones"])


@BY_THE_API
@pytest.mark.parametrize(
    ("wanted", "status", "piece"),
    [
        ("bytes=0-15", 206, slice(0, 16)),
        ("bytes=16-", 206, slice(16, None)),
        ("bytes=-16", 206, slice(-16, None)),
        ("bytes=1590-99999", 206, slice(1590, None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("rows=0-1", 200, slice(None)),
        ("bytes=5-2", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
    ],
)
def test_ranges_of_an_object(filled: World, wanted: str, status: int, piece: slice) -> None:
    base = filled.ok("GET", FILES)["segments"][0]
    file = next(one for one in base["files"] if one["name"] == "vectors")
    response = filled.fetch(file["url"], range=wanted)
    assert response.status_code == status
    assert response.content == vectors(0, 100).tobytes()[piece]
    if status == 206:
        start = int(response.headers["content-range"].split()[1].split("-")[0])
        assert response.headers["content-range"].endswith("/1600")
        assert vectors(0, 100).tobytes()[start:][: len(response.content)] == response.content


@BY_THE_API
def test_a_range_behind_the_end(filled: World) -> None:
    file = next(one for one in filled.ok("GET", FILES)["segments"][0]["files"] if one["name"] == "vectors")
    url = file["url"].removeprefix(filled.platform.settings.api_base_url)
    problem = filled.problem("GET", url, team=None, headers={"range": "bytes=1600-"})
    assert (problem["status"], problem["code"]) == (416, "range_not_satisfiable")


@BY_THE_API
def test_where_files_lie_is_told_only_where_the_settings_say_so(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paths() -> set[bool]:
        segments = filled.ok("GET", FILES)["segments"]
        return {file["path"] is not None for segment in segments for file in segment["files"]}

    assert paths() == {True}
    hidden = filled.platform.settings.model_copy(update={"local_paths": False})
    monkeypatch.setitem(filled.platform.__dict__, "settings", hidden)
    assert paths() == {False}
