"""Shards answer as the space they were cut from, whatever was written since."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tests.integration.store_core.conftest import DIM, NOW, Store

from bedplate.wire.filters import Filter
from bedplate.wire.shards import ShardAssign
from bedplate.wire.store import IndexSpecification
from bedplate_store import reader_processes, shard_assignments
from bedplate_store.announcing import ReaderAnnouncer
from bedplate_store.liveness import live_indexes
from bedplate_store.shard_nodes import LINGER_SECONDS, ShardNode, sharded_snapshot
from bedplate_store.shard_routing import RemoteSpace, ShardRouting
from bedplate_store.shard_views import KEPT_SECONDS, SequencePassed, ShardMissing
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow

SHARDS = 5
ROWS = 2_000


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def vectors(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, DIM), np.float32)


def assign(store: Store, key: SpaceKey, node: str, shards: list[int], expected: str | None = None) -> None:
    with store.database.write() as session:
        document = ShardAssign(space=str(key), shards=shards, node=node, expected_node=expected)
        shard_assignments.assign(session, document, moved_by="platform", now=NOW)


class Node:
    """A node that steps and announces when it is told to."""

    def __init__(self, store: Store, name: str, clock: Clock) -> None:
        self.inner = ShardNode(
            store.database, store.objects, store.cache_dir, name, clock=clock, now=lambda: NOW
        )
        self._announcer = ReaderAnnouncer(
            store.database, self.inner, service="store-node", url=f"http://{name}", node=name, now=lambda: NOW
        )

    def step(self) -> None:
        self.inner.step()
        self._announcer.announce_if_due()

    def shards(self, key: SpaceKey) -> dict[int, tuple[int, ...]]:
        opened = self.inner.opened().get(key)
        return {} if opened is None else dict(opened.shards)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(store: Store, clock: Clock, request: pytest.FixtureRequest) -> Node:
    """Named after the test: the tests share a database."""
    return Node(store, f"node-{abs(hash(request.node.name)) % 10**9}", clock)


def sharded(store: Store, keys: Any, kind: str = "ivf", shards: int = SHARDS, **signature: Any) -> SpaceKey:
    key = store.space(**signature)
    specification = IndexSpecification.model_validate({"kind": kind, "recall_target": 0.9, "shards": shards})
    partition = store.partition(key, keys, vectors(len(keys)))
    store.publish(store.prepare(key, partition, specification=specification))
    return key


def keys_of(key_type: str, numbers: Any) -> Any:
    return [f"kéy-{number:05d}" for number in numbers] if key_type == "string" else np.asarray(numbers) * 7


@pytest.mark.parametrize(
    ("kind", "key_type", "dtype"),
    [
        ("ivf", "int64", "float32"),
        ("ivf", "string", "float16"),
        ("flat", "int64", "int8"),
        ("hnsw", "string", "float32"),
        ("hnsw", "int64", "float16"),
    ],
)
def test_shards_here_and_on_a_node_answer_as_the_whole(
    store: Store, node: Node, clock: Clock, kind: str, key_type: str, dtype: str
) -> None:
    keys = keys_of(key_type, range(0, 2 * ROWS, 2))
    whole = sharded(store, keys, "flat", 1, key_type=key_type, dtype=dtype)
    cut = sharded(store, keys, kind, key_type=key_type, dtype=dtype)
    assign(store, cut, node.inner.node, list(range(SHARDS)))
    node.step()
    written = keys_of(key_type, [-3, 6, 7, 1_001, 2 * ROWS + 5])
    for key in (whole, cut):
        store.upsert(key, written, vectors(5, seed=1))
        store.delete(key, keys_of(key_type, [10, 2_000, 7]))
    with store.readers() as readers:
        one, local = readers.get(*whole), readers.get(*cut)
        group = node.inner.at(cut, 1, 2, tuple(range(SHARDS)))
        queries = vectors(30, seed=3)
        exact = one.search(queries, 10)
        for found in (local.search(queries, 10, ef=4096), group.search(queries, 10, ef=4096)):
            # All lists and large graphs: whatever the codes misjudge is rescored.
            assert (np.array(found.keys) == np.array(exact.keys)).mean() > 0.99
            np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5, atol=1e-5)
        asked = keys_of(key_type, [-3, -2, 0, 6, 7, 10, 1_001, 1_999, 2_000, 2_002, 2 * ROWS + 5])
        expected = one.lookup(asked)
        for got in (local.lookup(asked), group.lookup(asked)):
            np.testing.assert_array_equal(got.found, expected.found)
            np.testing.assert_array_equal(got.vectors, expected.vectors)
            assert (got.snapshot, got.sequence) == (1, 2)


def test_a_filter_means_the_same_on_a_node(store: Store, node: Node) -> None:
    cut = sharded(store, keys_of("int64", range(ROWS)))
    assign(store, cut, node.inner.node, list(range(SHARDS)))
    node.step()
    years = {"year": [1990, 2000, 2010]}
    store.upsert(cut, np.array([-1, 7 * 900 + 1, 7 * ROWS]), vectors(3), attributes=years)
    group = node.inner.at(cut, 1, 1, tuple(range(SHARDS)))
    late = Filter(attribute="year", at_least=1995)
    with store.readers() as readers:
        expected = readers.get(*cut).search(vectors(2), 5, filter=late)
    found = group.search(vectors(2), 5, filter=late)
    np.testing.assert_array_equal(found.keys, expected.keys)
    # No row of shard 0 has the attribute, and still it knows the name.
    assert node.inner.at(cut, 1, 1, (1,)).search(vectors(1), 5, filter=late).keys[0, 0] == -1


def test_a_node_answers_for_the_sequence_it_is_asked_for(store: Store, node: Node, clock: Clock) -> None:
    cut = sharded(store, keys_of("int64", range(ROWS)))
    assign(store, cut, node.inner.node, [0, 1])
    node.step()
    for number in range(3):
        store.upsert(cut, [0], np.full((1, DIM), float(number)))
    at = lambda sequence: node.inner.at(cut, 1, sequence, (0,)).lookup([0]).vectors[0, 0]  # noqa: E731
    assert at(1) == 0.0
    assert at(3) == 2.0
    assert at(1) == 0.0  # remembered
    with pytest.raises(SequencePassed) as passed:
        at(2)
    assert passed.value.sequence == 3
    clock.seconds += KEPT_SECONDS + 1
    store.upsert(cut, [0], np.full((1, DIM), 9.0))
    assert at(4) == 9.0
    with pytest.raises(SequencePassed):
        at(1)
    with pytest.raises(ShardMissing):
        node.inner.at(cut, 1, 4, (0, 2))
    with pytest.raises(ShardMissing):
        node.inner.at(cut, 2, 4, (0,))


def test_a_node_nobody_asks_keeps_up_by_itself(store: Store, node: Node, clock: Clock) -> None:
    cut = sharded(store, keys_of("int64", range(ROWS)))
    assign(store, cut, node.inner.node, [0])
    node.step()
    store.upsert(cut, [0], vectors(1))
    clock.seconds += 2
    node.step()
    assert node.inner.opened()[cut].sequence == 1


def route_of(store: Store, key: SpaceKey) -> RemoteSpace:
    found = ShardRouting(store.database, lambda: NOW).find(key)
    assert found is not None
    return found


def test_a_shard_is_open_at_its_new_node_before_the_old_one_lets_go(store: Store, clock: Clock) -> None:
    cut = sharded(store, keys_of("int64", range(ROWS)))
    old, new = Node(store, f"old-{cut.version}", clock), Node(store, f"new-{cut.version}", clock)
    assign(store, cut, old.inner.node, [0, 1, 2, 3, 4])
    old.step()
    new.step()
    assert {route.node for route in route_of(store, cut).routes} == {old.inner.node}
    assign(store, cut, new.inner.node, [3], expected=old.inner.node)
    old.step()
    clock.seconds += 10 * LINGER_SECONDS
    old.step()
    assert old.shards(cut) == {1: (0, 1, 2, 3, 4)}
    assert route_of(store, cut).routes[3].node == old.inner.node
    new.step()
    assert new.shards(cut) == {1: (3,)}
    assert route_of(store, cut).routes[3] == (new.inner.node, f"http://{new.inner.node}")
    old.step()
    assert 3 in old.shards(cut)[1]  # somebody may have looked a moment ago
    clock.seconds += LINGER_SECONDS
    old.step()
    assert old.shards(cut) == {1: (0, 1, 2, 4)}


def test_an_older_snapshot_is_answered_from_until_all_nodes_have_the_newer(
    store: Store, clock: Clock
) -> None:
    numbers = range(ROWS)
    cut = sharded(store, keys_of("int64", numbers))
    fast, slow = Node(store, f"fast-{cut.version}", clock), Node(store, f"slow-{cut.version}", clock)
    assign(store, cut, fast.inner.node, [0, 1, 2])
    assign(store, cut, slow.inner.node, [3, 4])
    fast.step()
    slow.step()
    wanted = IndexSpecification(kind="flat", shards=SHARDS)
    partition = store.partition(cut, keys_of("int64", numbers), vectors(ROWS, seed=5))
    store.publish(store.prepare(cut, partition, specification=wanted))
    fast.step()
    clock.seconds += 10 * LINGER_SECONDS
    fast.step()
    assert fast.shards(cut) == {1: (0, 1, 2), 2: (0, 1, 2)}
    assert route_of(store, cut).snapshot == 1
    slow.step()
    assert route_of(store, cut).snapshot == 2
    fast.step()
    clock.seconds += LINGER_SECONDS
    fast.step()
    assert fast.shards(cut) == {2: (0, 1, 2)}
    with store.database.read() as session:
        listed = reader_processes.list_readers(session, cut, NOW)
    assert {one.node: one.shards for one in listed} == {
        fast.inner.node: [0, 1, 2],
        slow.inner.node: [3, 4],
    }


def test_spaces_of_one_shard_or_without_an_assignment_are_not_for_nodes(store: Store, node: Node) -> None:
    whole = sharded(store, keys_of("int64", range(ROWS)), shards=1)
    cut = sharded(store, keys_of("int64", range(ROWS)))
    routing = ShardRouting(store.database, lambda: NOW)
    assign(store, whole, node.inner.node, [0])
    node.step()
    assert routing.find(whole) is None
    assert routing.find(cut) is None
    assert node.inner.opened() == {}


def test_all_shards_of_a_snapshot_are_kept_by_the_collector(store: Store) -> None:
    cut = sharded(store, keys_of("int64", range(ROWS)))
    with store.database.read() as session:
        row = space_row(session, cut)
        snapshot = sharded_snapshot(row, session.get(SnapshotRow, (row.id, 1)))
        assert snapshot is not None
        live = live_indexes(session, NOW, timedelta(0))
    assert len(snapshot) == SHARDS
    assert {shard.digest for shard in snapshot.document.shards} <= live
