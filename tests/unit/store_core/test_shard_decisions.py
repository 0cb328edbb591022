"""What a store node keeps, what an alias waits for, and whom the router asks: decided on what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bedplate_store.indexes import IndexDocument, ShardDocument
from bedplate_store.reader_processes import OpenSpace, ReaderProcess
from bedplate_store.shard_assignments import owners
from bedplate_store.shard_nodes import PublishedShards, needed, to_open, unready
from bedplate_store.shard_routing import Route, answerable, routes
from bedplate_store.shard_views import ShardedSnapshot
from bedplate_store.spaces import SpaceKey

KEY = SpaceKey("core", 7, "item")


def published(*nodes: str | None, snapshot: int = 2, key: SpaceKey = KEY) -> PublishedShards:
    shards = [ShardDocument(number or None, number, number + 1, "", 0) for number in range(len(nodes))]
    document = IndexDocument.flat(len(nodes)).of_shards(shards)
    sharded = ShardedSnapshot(key, snapshot, 2, "float32", "l2", "int64", "digest", document)
    return PublishedShards(sharded, 5, nodes)


def node(name: str, held: Mapping[int, Sequence[int]], key: SpaceKey = KEY) -> ReaderProcess:
    shards = tuple((snapshot, tuple(numbers)) for snapshot, numbers in held.items())
    opened = OpenSpace(max(held, default=0), 5, True, shards)
    return ReaderProcess(name, "store-node", name, f"http://{name}", False, {key: opened}, name)


def test_a_row_for_one_space_counts_before_the_row_for_all() -> None:
    assignments = {("*", 0): "a", ("*", 1): "b", ("core@7/item", 1): "c"}
    assert owners(assignments, KEY, 3) == ["a", "c", None]
    assert owners(assignments, SpaceKey("core", 8, "item"), 2) == ["a", "b"]


def test_a_node_opens_what_is_assigned_to_it() -> None:
    assert to_open("a", [published("a", "b", "a")]) == {(KEY, 2, 0), (KEY, 2, 2)}


def test_a_moved_shard_is_kept_until_its_new_owner_has_it() -> None:
    space = {KEY: published("a", "b")}
    held = {(KEY, 2, 0), (KEY, 2, 1)}
    assert needed(held, "a", space, []) == held
    assert needed(held, "a", space, [node("b", {1: [1]})]) == held
    assert needed(held, "a", space, [node("b", {2: [1]})]) == {(KEY, 2, 0)}


def test_a_shard_taken_from_everybody_or_of_an_unknown_space_is_not_kept() -> None:
    assert needed({(KEY, 2, 1)}, "a", {KEY: published("a", None)}, []) == set()
    assert needed({(KEY, 2, 1)}, "a", {}, []) == set()


def test_an_older_snapshot_is_kept_until_all_living_owners_have_the_newer() -> None:
    space = {KEY: published("a", "b", "dead")}
    held = {(KEY, 1, 0), (KEY, 2, 0)}
    assert needed(held, "a", space, [node("b", {1: [1]})]) == held
    assert needed(held, "a", space, [node("b", {1: [1], 2: [1]})]) == {(KEY, 2, 0)}


def test_an_alias_waits_for_the_nodes_that_serve_its_space() -> None:
    target = SpaceKey("core", 8, "item")
    spaces = {KEY: published("a", "b"), target: published("a", "b", key=target)}
    lacking = unready(spaces, [node("a", {2: [0]}, target), node("b", {1: [1]}, target)], "core", 7, 8)
    assert [(one.process, one.space) for one in lacking] == [("store node b", "core@8/item")]
    assert unready(spaces, [node("a", {2: [0]}, target), node("b", {2: [1]}, target)], "core", 7, 8) == []
    assert unready(spaces, [], "core", 6, 8) == []


def test_the_newest_snapshot_that_most_shards_can_be_asked_for_is_answered_from() -> None:
    assert answerable(KEY, []).snapshot() is None
    behind = [node("a", {1: [0], 2: [0]}), node("b", {1: [1]})]
    assert answerable(KEY, behind).snapshot() == 1
    level = [node("a", {1: [0], 2: [0]}), node("b", {1: [1], 2: [1]})]
    assert answerable(KEY, level).snapshot() == 2


def test_the_owner_is_asked_if_it_has_the_shard_else_who_has_it() -> None:
    urls = {name: f"http://{name}" for name in ("a", "b", "c")}
    known = answerable(KEY, [node("a", {2: [0, 1]}), node("b", {2: [0]})])
    assert routes(2, ["b", "c", "c", None, "never"], known, urls) == (
        Route("b", "http://b"),
        Route("a", "http://a"),  # c does not have it yet
        Route("c", "http://c"),  # nobody says to have it; c may have started again
        Route(None, None),
        Route("never", None),
    )


def test_of_two_processes_of_one_name_the_one_that_came_later_is_asked_once_it_has_the_shard() -> None:
    old = replace(node("a", {2: [0, 1]}), id="old", url="http://old")
    new = replace(node("a", {2: [0]}), id="new", url="http://new")
    urls = {"a": "http://old"}
    assert routes(2, ["a", "a"], answerable(KEY, [old, new]), urls) == (
        Route("a", "http://new"),
        Route("a", "http://old"),  # the new one has not opened it yet
    )


def test_a_process_that_takes_its_leave_is_asked_only_where_nobody_else_has_the_shard() -> None:
    leaving = node("a", {})
    urls = {"a": "http://a", "b": "http://b"}
    assert routes(2, ["a"], answerable(KEY, [leaving, node("b", {2: [0]})]), urls) == (
        Route("b", "http://b"),
    )
    assert routes(2, ["a"], answerable(KEY, [leaving]), urls) == (Route("a", "http://a"),)
