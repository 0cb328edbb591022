"""Shards served by store nodes, as real processes: they answer as one index does, also while nodes die,
freeze and hand shards over.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from bedplate import Client
from bedplate.errors import ShardMoved, ShardsUnanswered
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_services.supervisor.children import RestartPolicy
from bedplate_services.supervisor.platform import Platform
from bedplate_store import reader_processes, snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.objects import LocalObjectStore
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

ROWS, DIM, SHARDS, NODES = 12_000, 16, 6, 3
ONE, SIX = "core@1/one", "core@1/six"
DEADLINE_SECONDS = 1.0
PATIENCE_SECONDS = 60.0


class Shelf:
    """The store's database and objects, for what a worker would do."""

    def __init__(self, platform: Platform) -> None:
        self.database = Database(platform.directory.store_database_url)
        self.objects = LocalObjectStore(platform.directory.root / "objects")
        self.cache = platform.directory.cache / "test"

    def publish(self, reference: str, seed: int, shards: int) -> None:
        key, vectors = SpaceKey.parse(reference), make_vectors(seed)
        with self.database.write() as session:
            spaces.ensure_space(
                session,
                **key._asdict(),
                signature=SpaceSignature(dim=DIM, dtype="float32", key_type="int64"),
                team="foundation",
                now=datetime.now(UTC),
            )
        segment = write_segment(self.objects, keys=KEYS, vectors=vectors, dtype="float32", key_type="int64")
        wanted = IndexSpecification(kind="ivf", recall_target=0.9, shards=shards)
        prepared = snapshots.prepare(self.database, self.objects, self.cache, key, [segment.digest], wanted)
        with self.database.write() as session:
            snapshots.publish(session, prepared, objects=self.objects, job=None, now=datetime.now(UTC))

    def nodes(self) -> dict[str, list[int]]:
        """The shards that each node says it has."""
        with self.database.read() as session:
            readers = reader_processes.list_readers(session, SpaceKey.parse(SIX), datetime.now(UTC))
        return {one.node: one.shards for one in readers if one.node}

    def token(self) -> str:
        """Of the last write."""
        with self.database.read() as session:
            return f"{SIX}:{snapshots.current_sequence(session, *SpaceKey.parse(SIX))}"

    def upsert(self, reference: str, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> int:
        key = SpaceKey.parse(reference)
        written = Writes(self.database, self.objects).upsert(
            **key._asdict(), keys=keys, vectors=vectors, now=datetime.now(UTC)
        )
        return written.sequence


KEYS = np.arange(ROWS, dtype=np.int64) * 3


def make_vectors(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((ROWS, DIM), np.float32)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(
        tmp_path_factory.mktemp("shards"),
        store_nodes=NODES,
        environment={"BEDPLATE_SHARD_DEADLINE_SECONDS": str(DEADLINE_SECONDS)},
        policy=lambda: RestartPolicy(backoff_seconds=3.0),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def shelf(platform: Platform) -> Iterator[Shelf]:
    shelf = Shelf(platform)
    shelf.publish(ONE, seed=1, shards=1)
    shelf.publish(SIX, seed=1, shards=SHARDS)
    yield shelf
    shelf.database.close()


@pytest.fixture
def client(platform: Platform, shelf: Shelf) -> Iterator[Client]:
    with Client(platform.url, platform.token) as client:
        whole(client)
        yield client


def whole(client: Client) -> None:
    """Wait until every shard answers."""
    until(lambda: client.spaces.search(SIX, np.zeros((1, DIM), np.float32)).shards == (SHARDS, SHARDS))


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if happened():
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.1)


def queries(count: int = 40) -> NDArray[np.float32]:
    return np.random.default_rng(9).standard_normal((count, DIM), np.float32)


def test_shards_answer_as_one_index(client: Client, shelf: Shelf) -> None:
    # Where the codes leave nothing out that exact scores would bring back, the answers are identical.
    one, six = (client.spaces.search(space, queries(), k=50, ef=4096) for space in (ONE, SIX))
    assert (one.shards, six.shards) == (None, (SHARDS, SHARDS))
    np.testing.assert_array_equal(six.keys[:, :10], one.keys[:, :10])
    np.testing.assert_array_equal(six.scores[:, :10], one.scores[:, :10])
    # As tuned each shard rescores as many candidates as one index does, so that together they find no less.
    one, six = (client.spaces.search(space, queries(), k=10) for space in (ONE, SIX))
    assert (six.scores >= one.scores).all()
    assert (six.keys == one.keys).mean() > 0.9
    asked = np.concatenate([KEYS[::97], [1, -5, 3 * ROWS + 1]])
    one_found, six_found = client.spaces.lookup(ONE, asked), client.spaces.lookup(SIX, asked)
    np.testing.assert_array_equal(six_found.vectors, one_found.vectors)
    np.testing.assert_array_equal(six_found.found, one_found.found)
    assert six_found.unanswered is None
    one, six = (client.spaces.search(space, keys=asked, k=50, ef=4096) for space in (ONE, SIX))
    np.testing.assert_array_equal(six.keys[:, :10], one.keys[:, :10])
    np.testing.assert_array_equal(six.scores[:, :10], one.scores[:, :10])


def test_each_node_has_its_shards_and_no_more(client: Client, shelf: Shelf) -> None:
    assert shelf.nodes() == {"node-1": [0, 3], "node-2": [1, 4], "node-3": [2, 5]}


def test_a_write_is_seen_by_whoever_carries_its_token(client: Client, shelf: Shelf) -> None:
    for number in range(20):
        keys = np.array([4, 3 * (ROWS // 2), 3 * ROWS + number], np.int64)  # of three shards
        vectors = np.full((3, DIM), float(number), np.float32)
        sequence = shelf.upsert(SIX, keys, vectors)
        answer = client.spaces.lookup(SIX, keys, after=f"{SIX}:{sequence}")
        np.testing.assert_array_equal(answer.vectors, vectors)
        hits = client.spaces.search(SIX, vectors[:1], k=3, after=f"{SIX}:{sequence}")
        assert set(hits.keys[0].tolist()) == set(keys.tolist()) or number == 0


@contextmanager
def hammered(platform: Platform, shelf: Shelf) -> Iterator[list[str]]:
    """Lookups and searches in two threads meanwhile; gives what went wrong."""
    wrong: list[str] = []
    stop = threading.Event()
    vectors = make_vectors(1)
    with Client(platform.url, platform.token) as before:
        # Seen with the token once, the last write is seen by all requests after it.
        expected = before.spaces.search(SIX, queries(2), k=5, after=shelf.token()).keys

    def hammer(seed: int) -> None:
        random = np.random.default_rng(seed)
        with Client(platform.url, platform.token) as client:
            while not stop.is_set():
                rows = random.integers(100, ROWS // 2 - 100, 50)
                try:
                    found = client.spaces.lookup(SIX, KEYS[rows])
                    if not (found.vectors == vectors[rows]).all():
                        wrong.append("a wrong vector")
                    if (client.spaces.search(SIX, queries(2), k=5).keys != expected).any():
                        wrong.append("a wrong hit")
                except Exception as error:  # noqa: BLE001  # whatever it is, it is told
                    wrong.append(repr(error))

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_shard_moves_without_a_failed_request(client: Client, platform: Platform, shelf: Shelf) -> None:
    def holds(node: str, shard: int) -> bool:
        return shard in shelf.nodes()[node]

    with hammered(platform, shelf) as wrong:
        time.sleep(0.5)
        client.shards.assign([0], "node-2", expected="node-1")
        with pytest.raises(ShardMoved):
            client.shards.assign([0], "node-3", expected="node-1")
        until(lambda: holds("node-2", 0) and not holds("node-1", 0))
        client.shards.assign([0], "node-1", expected="node-2")
        until(lambda: holds("node-1", 0) and not holds("node-2", 0))
        time.sleep(0.5)
    assert wrong == []
    assert [one.to_node for one in client.shards.moves(2)] == ["node-1", "node-2"]


def test_a_killed_node_is_told_of_and_comes_back(client: Client, platform: Platform) -> None:
    os.kill(platform.pids()["store-node-2"], signal.SIGKILL)
    with pytest.raises(ShardsUnanswered, match="node-2") as raised:
        client.spaces.search(SIX, queries())
    assert raised.value.context["missing"] == [1, 4]
    assert raised.value.context["shards"] == {"answered": 4, "of": 6}
    partial = client.spaces.search(SIX, queries(), allow_partial=True)
    assert partial.shards == (4, 6)
    cut = ROWS // SHARDS
    shard_of_hits = np.searchsorted(KEYS[cut::cut], partial.keys, side="right")
    assert not np.isin(shard_of_hits, [1, 4]).any()
    asked = np.array([KEYS[10], KEYS[cut + 10], 31, 3 * cut + 31])  # known, unanswered, unknown, unanswered
    found = client.spaces.lookup(SIX, asked, allow_partial=True)
    assert found.shards == (1, 2)
    assert found.found.tolist() == [True, False, False, False]
    assert found.unanswered is not None
    assert found.unanswered.tolist() == [False, True, False, True]
    document = httpx.post(
        f"{platform.url}/v1/spaces/{SIX}/lookup?allow_partial=true",
        json={"keys": asked.tolist()},
        headers={"authorization": f"Bearer {platform.token}"},
        trust_env=False,
    ).json()
    assert document["found"] == [True, None, False, None]
    assert document["shards"] == {"answered": 1, "of": 2}
    whole(client)


def test_a_frozen_node_costs_the_deadline_and_no_more(client: Client, platform: Platform) -> None:
    frozen = platform.pids()["store-node-3"]
    os.kill(frozen, signal.SIGSTOP)
    try:
        with pytest.raises(ShardsUnanswered, match="node-3"):
            client.spaces.search(SIX, queries())
        assert client.spaces.search(SIX, queries(), allow_partial=True).shards == (4, 6)
    finally:
        os.kill(frozen, signal.SIGCONT)
    whole(client)


def test_a_new_snapshot_is_answered_from_by_all_nodes_or_none(
    client: Client, platform: Platform, shelf: Shelf
) -> None:
    asked = KEYS[:: ROWS // 60]
    states = {seed: make_vectors(seed)[:: ROWS // 60] for seed in (1, 2)}
    stop, seen = threading.Event(), set()

    def look() -> None:
        with Client(platform.url, platform.token) as client:
            while not stop.is_set():
                answer = client.spaces.lookup(SIX, asked)
                seen.update(
                    seed
                    for seed, vectors in states.items()
                    if (answer.vectors[2:-2] == vectors[2:-2]).mean() > 0.9
                )
                mixed = [(answer.vectors[2:-2] == vectors[2:-2]).any() for vectors in states.values()]
                seen.add("mixed" if all(mixed) else "one")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        shelf.publish(SIX, seed=2, shards=SHARDS)
        until(lambda: 2 in seen)
    finally:
        stop.set()
        thread.join()
    assert seen == {1, 2, "one"}
