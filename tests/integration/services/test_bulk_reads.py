"""The SDK reads whole spaces from the real API: streams that are cut, downloads that go on, writes above."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.integration.places import FILES
from torch.utils.data import DataLoader

from bedplate import AsyncClient, Client, SpaceData, cli
from bedplate.cli.options import Session
from bedplate.errors import DigestMismatch, InvalidRequest, SnapshotGone, SpaceNotReady, Unavailable
from bedplate_store import collection

from .conftest import World
from .test_bulk_routes import EXPECTED, compact, delete, filled, vectors

__all__ = ["filled"]
ITEM, BASE = "core@1/item", "http://127.0.0.1:8700"


class _Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks after ``allowed`` bytes."""

    def __init__(self, content: bytes, allowed: int) -> None:
        self._content, self._allowed = content, allowed

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self._allowed, 100):
            yield self._content[start : min(start + 100, self._allowed)]
        if self._allowed < len(self._content):
            raise httpx.ReadError("cut")

    async def __aiter__(self) -> Any:
        for chunk in self:
            yield chunk


@dataclass
class Wire(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to the API in this process, and those of signed URLs to where they lead; cuts the
    bodies of answers as ``cuts`` says, one by one.

    Attributes:
        between: called after a body was cut, before the next request.
    """

    world: World
    cuts: list[int] = field(default_factory=list)
    asked: list[httpx.Request] = field(default_factory=list)
    between: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            request.read()
            self.asked.append(request)
            answer = self._answer(request)
            stream = _Cut(answer.content, len(answer.content))
            if self.cuts and answer.status_code < 300 and "/files" not in request.url.path:
                stream = _Cut(answer.content, min(self.cuts.pop(0), len(answer.content)))
                if self.between is not None:
                    self.between()
            return httpx.Response(answer.status_code, headers=dict(answer.headers), stream=stream)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        headers = {key: value for key, value in request.headers.items() if key != "content-length"}
        if not str(request.url).startswith(BASE):
            return httpx.request(request.method, request.url, headers=headers, trust_env=False)
        target = request.url.raw_path.decode()
        return self.world.http.request(request.method, target, headers=headers, content=request.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await asyncio.to_thread(self.handle_request, request)

    def client(self) -> Client:
        return Client(
            BASE,
            self.world.secrets["feed-team"],
            transport=self,
            sleep=lambda _: None,
            environment={},
        )


@pytest.fixture
def wire(filled: World) -> Wire:
    return Wire(filled)


def rows(batches: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for batch in batches:
        for key, vector in zip(batch.keys, batch.vectors, strict=True):
            assert key not in found
            found[key] = vector
    return found


def same(found: dict[Any, Any]) -> bool:
    return list(found) == list(EXPECTED_ORDER) and all(
        np.array_equal(found[key], EXPECTED[key]) for key in found
    )


EXPECTED_ORDER = [
    *(key for key in range(0, 1000, 10) if key not in (0, 10, 500, 510, 990)),
    *(0, 5, 15, 25, 35, 500, 990),
]


@pytest.mark.parametrize("via", ["rest", "files"])
@pytest.mark.parametrize("batch_rows", [None, 3])
def test_every_row_once(wire: Wire, via: Any, batch_rows: int | None) -> None:
    with wire.client() as client:
        batches = list(client.spaces.scan(ITEM, via=via, batch_rows=batch_rows))
    assert same(rows(batches))
    assert {(one.info.reference, one.info.snapshot, one.info.sequence) for one in batches} == {(ITEM, 1, 3)}
    assert [one.first_row for one in batches] == list(np.cumsum([0] + [len(one) for one in batches])[:-1])


@pytest.mark.parametrize("via", ["rest", "files"])
def test_shards(wire: Wire, via: Any) -> None:
    with wire.client() as client:
        parts = [rows(client.spaces.scan(ITEM, via=via, shard=(number, 3))) for number in range(3)]
        assert [key for part in parts for key in part] == EXPECTED_ORDER
        with pytest.raises(InvalidRequest):
            list(client.spaces.scan(ITEM, via=via, shard=(3, 3)))


def test_a_cut_stream_goes_on_in_the_same_state(wire: Wire) -> None:
    """While others write and compact between the tries, and the alias moves away."""

    def move_on() -> None:
        wire.world.upsert(ITEM, np.array([20, 100_000]), vectors(7, 2))
        compact(wire.world)
        if len(wire.cuts) == 1:
            wire.world.move("production", wire.world.publish(seed=1), expected=1)

    wire.world.move("production", 1)
    wire.between, wire.cuts = move_on, [1500, 700]
    with wire.client() as client:
        assert same(rows(client.spaces.scan("core@production/item", batch_rows=10)))
    states = [request.url.params.get("snapshot") for request in wire.asked]
    assert states == [None, "1", "1"]
    assert "100000" in {str(key) for key in rows(wire.client().spaces.scan(ITEM))}


@pytest.mark.parametrize("engines", [FILES], indirect=True)  # the stream is the same
def test_whatever_the_cut_no_row_twice_none_lost(wire: Wire) -> None:
    whole = wire.world.call("GET", f"/v1/spaces/{ITEM}/scan", params={"batch_rows": 10}).content
    with wire.client() as client:
        for first in range(0, len(whole), 61):
            wire.cuts = [first, (first * 7) % 1200, 1100]
            assert same(rows(client.spaces.scan(ITEM, batch_rows=10)))


def test_a_stream_that_never_gets_on_is_given_up(wire: Wire) -> None:
    wire.cuts = [100] * 10
    with wire.client() as client, pytest.raises(Unavailable):
        list(client.spaces.scan(ITEM))
    assert len(wire.cuts) == 4


def test_a_state_that_is_gone_says_so(wire: Wire) -> None:
    def collect() -> None:
        wire.world.upsert(ITEM, np.array([20]), vectors(7, 1))
        compact(wire.world)
        wire.world.clock.advance(7200)
        platform = wire.world.platform
        collection.collect(platform.store, platform.objects, now=wire.world.clock(), grace=timedelta(hours=1))

    wire.cuts, wire.between = [1500], collect
    with wire.client() as client, pytest.raises(SnapshotGone, match="start again"):
        list(client.spaces.scan(ITEM, batch_rows=10))


def test_who_has_enough_stops(wire: Wire) -> None:
    with wire.client() as client:
        batches = client.spaces.scan(ITEM, batch_rows=5)
        assert len(next(batches)) == 5
        batches.close()  # type: ignore[attr-defined]  # a generator


def test_keys_alone(wire: Wire) -> None:
    with wire.client() as client:
        for via in ("rest", "files"):
            (batch, *_) = client.spaces.scan(ITEM, columns=["key"], via=via)
            assert batch.vectors is None
            assert batch.keys is not None
        with pytest.raises(InvalidRequest):
            client.spaces.scan(ITEM, columns=["price"]).__next__()


def test_the_asynchronous_client_reads_the_same(wire: Wire, tmp_path: Path) -> None:
    async def read() -> None:
        secret = wire.world.secrets["feed-team"]
        async with AsyncClient(BASE, secret, transport=wire, environment={}) as client:
            wire.cuts = [1500]
            assert same(rows([batch async for batch in client.spaces.scan(ITEM, batch_rows=10)]))
            assert same(rows([batch async for batch in client.spaces.scan(ITEM, via="files")]))
            data = await client.spaces.download(ITEM, tmp_path)
            assert same(rows(data.batches()))

    asyncio.run(read())


def test_a_download_is_whole_verified_and_opened_again(wire: Wire, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with wire.client() as client:
        data = client.spaces.download(
            ITEM, tmp_path, progress=lambda _, done, total: told.append((done, total))
        )
        assert same(rows(data.batches()))
        assert told[-1][0] == told[-1][1]
        wire.asked.clear()
        client.spaces.download(ITEM, tmp_path)
        assert [request.url.path for request in wire.asked] == [f"/v1/spaces/{ITEM}/files"]
    again = SpaceData.open(tmp_path)
    assert list(again.keys) == EXPECTED_ORDER
    assert np.array_equal(again.vectors, np.stack([EXPECTED[key] for key in EXPECTED_ORDER]))
    document = json.loads((tmp_path / "space.json").read_text())
    assert all(file["url"] == "" for segment in document["segments"] for file in segment["files"])


def test_a_broken_download_asks_for_the_rest_only(wire: Wire, tmp_path: Path) -> None:
    wire.cuts = [300, 300, 300, 300]
    with wire.client() as client:
        assert same(rows(client.spaces.download(ITEM, tmp_path).batches()))
    ranges = [request.headers["range"] for request in wire.asked if "range" in request.headers]
    assert ranges
    assert not list(tmp_path.rglob("*.partial*"))


def test_what_a_killed_process_left_is_gone_on_with(wire: Wire, tmp_path: Path) -> None:
    wire.cuts = [300] * 400
    with wire.client() as client:
        file = next(one for one in client.spaces.files(ITEM).segments[0].files if one.name == "vectors")
        folder = tmp_path / "segments" / client.spaces.files(ITEM).segments[0].digest
        folder.mkdir(parents=True)
        content = vectors(0, 100).tobytes()
        partial = folder / f".vectors.{file.sha256[:16]}.partial"
        wire.cuts = []
        partial.write_bytes(content[:1000])
        assert same(rows(client.spaces.download(ITEM, tmp_path).batches()))
        assert "bytes=1000-" in [request.headers.get("range") for request in wire.asked]
        # Other bytes than were sent: found out, and fetched from the beginning.
        (folder / "vectors").unlink()
        partial.write_bytes(b"\0" * 1000)
        assert same(rows(client.spaces.download(ITEM, tmp_path).batches()))


def test_two_downloads_at_once_into_one_directory(wire: Wire, tmp_path: Path) -> None:
    done: list[bool] = []

    def one() -> None:
        with wire.client() as client:
            done.append(same(rows(client.spaces.download(ITEM, tmp_path).batches())))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 4
    assert not list(tmp_path.rglob("*.partial*"))


def damage(world: World) -> None:
    """A byte of the base's vectors, where it is stored."""
    store = world.platform.objects
    digest = world.ok("GET", f"/v1/spaces/{ITEM}/files")["segments"][0]["digest"]
    key = f"segments/{digest}/vectors"
    content = bytearray(store.get(key))
    content[100] ^= 1
    path = store.local_path(key)
    if path is None:
        store.put(key, bytes(content))
    else:
        path.write_bytes(content)


def test_a_flipped_byte_is_never_read(wire: Wire, tmp_path: Path) -> None:
    damage(wire.world)
    with wire.client() as client:
        with pytest.raises(DigestMismatch):
            list(client.spaces.scan(ITEM, via="files"))
        with pytest.raises(DigestMismatch):
            client.spaces.download(ITEM, tmp_path)
    with pytest.raises(InvalidRequest):
        SpaceData.open(tmp_path)


def test_torch_shares_the_memory_and_spares_the_file(wire: Wire, tmp_path: Path) -> None:
    compact(wire.world)
    with wire.client() as client:
        data = client.spaces.download(ITEM, tmp_path)
    assert data.is_one_segment
    tensor = data.to_torch()
    assert tensor.data_ptr() == data.vectors.ctypes.data
    tensor.zero_()
    assert SpaceData.open(tmp_path).vectors.any()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_torch_dataset_gives_every_row_once_over_all_ranks(
    wire: Wire, tmp_path: Path, workers: int
) -> None:
    with wire.client() as client:
        data = client.spaces.download(ITEM, tmp_path)
    found: dict[Any, Any] = {}
    for rank in range(2):
        dataset = data.torch_dataset(7, rank=rank, world_size=2)
        for keys, tensor in DataLoader(dataset, batch_size=None, num_workers=workers):
            assert isinstance(tensor, torch.Tensor)
            for key, vector in zip(np.asarray(keys).tolist(), tensor.numpy(), strict=True):
                assert key not in found
                found[key] = vector
    assert found.keys() == EXPECTED.keys()
    assert all(np.array_equal(found[key], EXPECTED[key]) for key in found)
    with pytest.raises(InvalidRequest):
        data.torch_dataset(rank=2, world_size=2)


def test_it_travels_to_other_processes_by_its_directory(wire: Wire, tmp_path: Path) -> None:
    with wire.client() as client:
        data = client.spaces.download(ITEM, tmp_path)
        assert same(rows(pickle.loads(pickle.dumps(data)).batches()))
        with pytest.raises(TypeError):
            pickle.dumps(client.spaces.read(ITEM))


def test_string_keys_and_float16(world: World, tmp_path: Path) -> None:
    world.publish()
    keys = [*(f"k{number:03}" for number in range(50)), "schön", "日本"]
    world.upsert("core@1/user", keys, vectors(0, 52).astype(np.float16))
    compact(world, "user")
    world.upsert("core@1/user", ["k007", "new"], vectors(500, 2).astype(np.float16))
    delete(world, ["k009"], "core@1/user")
    with Wire(world).client() as client:
        over_rest = rows(client.spaces.scan("core@1/user", batch_rows=4))
        data = client.spaces.download("core@1/user", tmp_path)
    assert set(over_rest) == {*keys, "new"} - {"k009"}
    assert list(over_rest) == list(rows(data.batches(4))) == data.keys.to_pylist()
    assert data.vectors.dtype == np.float16
    assert np.array_equal(data.vectors, np.stack(list(over_rest.values())))


@pytest.fixture
def run(wire: Wire, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command against the API of the world; gives (exit code, standard output)."""

    def call(*words: str) -> tuple[int, str]:
        code = cli.run(words, Session(connect=lambda _url, _token: wire.client()))
        return code, capsys.readouterr().out

    return call


@pytest.mark.parametrize("via", ["rest", "files"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npy"])
def test_the_command_writes_files_others_read(run: Any, tmp_path: Path, suffix: str, via: str) -> None:
    output = tmp_path / f"items{suffix}"
    code, out = run(
        "spaces", "scan", ITEM, "--output", str(output), "--via", via, "--batch-rows", "7", "--json"
    )
    assert code == 0
    assert json.loads(out)["rows"] == len(EXPECTED)
    if suffix == ".npy":
        keys, read = np.load(output.with_suffix(".keys.npy")), np.load(output)
    else:
        table = pq.read_table(output) if suffix == ".parquet" else pa.ipc.open_file(output).read_all()
        keys = table["key"].to_numpy()
        read = np.stack(table["vector"].to_pylist()).astype(np.float32)
    assert keys.tolist() == EXPECTED_ORDER
    assert np.array_equal(read, np.stack([EXPECTED[key] for key in EXPECTED_ORDER]))
    assert {file.suffix for file in tmp_path.iterdir() if file.name.startswith("items")} == {suffix}
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".items")]


def test_shards_by_command(run: Any, tmp_path: Path) -> None:
    for number in range(3):
        output = str(tmp_path / f"{number}.npy")
        assert run("spaces", "scan", ITEM, "--output", output, "--shard", f"{number}/3")[0] == 0
    keys = np.concatenate([np.load(tmp_path / f"{number}.keys.npy") for number in range(3)])
    assert keys.tolist() == EXPECTED_ORDER


@pytest.mark.parametrize(
    "words",
    [
        ("scan", ITEM, "--output", "items.csv"),
        ("scan", ITEM, "--output", "no/such/folder/items.arrow"),
        ("scan", ITEM, "--output", "items.arrow", "--shard", "first"),
        ("scan", ITEM, "--output", "items.arrow", "--shard", "3/3"),
        ("scan", ITEM, "--output", "items.arrow", "--via", "pigeon"),
    ],
)
def test_bad_commands_leave_nothing(
    run: Any, tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("spaces", *words)[0] == 2
    assert list((tmp_path / "here").iterdir()) == []


def test_the_download_command(run: Any, tmp_path: Path) -> None:
    assert run("spaces", "download", ITEM, str(tmp_path / "items"), "--json")[0] == 0
    assert same(rows(SpaceData.open(tmp_path / "items").batches()))


def test_a_file_verified_in_place_is_verified_again_once_touched(wire: Wire) -> None:
    with wire.client() as client:
        assert same(rows(client.spaces.scan(ITEM, via="files")))
        assert same(rows(client.spaces.scan(ITEM, via="files")))
        damage(wire.world)
        with pytest.raises(DigestMismatch):
            list(client.spaces.scan(ITEM, via="files"))


def test_an_empty_space(world: World, tmp_path: Path) -> None:
    world.publish()
    with Wire(world).client() as client:
        with pytest.raises(SpaceNotReady):
            list(client.spaces.scan(ITEM))
        world.upsert(ITEM, np.array([1]), vectors(0, 1))
        delete(world, np.array([1]))
        assert list(client.spaces.scan(ITEM)) == []
        assert len(client.spaces.download(ITEM, tmp_path)) == 0
        assert len(client.spaces.download(ITEM, tmp_path).keys) == 0


def test_what_is_no_downloaded_space(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="download it"):
        SpaceData.open(tmp_path)
