"""An alias moves when every process that follows it has the new version open."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from bedplate.wire.registry import AliasMove
from bedplate_services import alias_moves
from bedplate_store import reader_processes
from bedplate_store.reader_processes import OpenSpace, ReaderProcess
from bedplate_store.spaces import SpaceKey, find_row

from .conftest import World

PATH = "/v1/foundations/core/aliases/production"
LOOKUP = "/v1/spaces/core@production/item/lookup"
VECTOR = np.ones((1, 4), np.float32)


def _two_versions(world: World) -> None:
    for seed in (1, 2):
        version = world.publish(seed)
        world.upsert(f"core@{version}/item", np.array([1], np.int64), VECTOR * version)
    world.move("production", 1)


def _another(world: World, **spaces: tuple[int, bool]) -> None:
    """Another process says what it has open: ``v1=(0, True)`` is core@1/item, written to only, in use."""
    opened = {
        SpaceKey("core", int(name[1:]), "item"): OpenSpace(at, 1, use) for name, (at, use) in spaces.items()
    }
    reader = ReaderProcess("other", "api", "elsewhere/7", "http://elsewhere", True, opened)
    with world.platform.store.write() as session:
        reader_processes.announce(session, reader, started_at=world.clock(), now=world.clock())


def _move(**members: Any) -> dict[str, Any]:
    return {"version": 2, "expected_version": 1, **members}


def test_it_moves_once_this_process_has_opened_the_version(world: World) -> None:
    _two_versions(world)
    assert world.call("POST", LOOKUP, json={"keys": [1]}).headers["x-bedplate-version"] == "core@1"
    world.platform.announcer.announce_if_due()
    world.ok("PUT", PATH, "core-team", json=_move(wait_for_readers_seconds=30))
    opened = world.platform.readers.opened()
    assert SpaceKey("core", 2, "item") in opened, "opened before the first request"
    assert world.call("POST", LOOKUP, json={"keys": [1]}).headers["x-bedplate-version"] == "core@2"


def test_a_process_that_lacks_it_is_named_and_nothing_moves(world: World) -> None:
    _two_versions(world)
    _another(world, v1=(0, True))
    problem = world.problem("PUT", PATH, "core-team", json=_move(wait_for_readers_seconds=0))
    assert (problem["status"], problem["code"]) == (409, "readers_not_ready")
    assert "elsewhere/7: core@2/item, not open yet" in problem["detail"]
    assert problem["readers"] == [
        {"process": "elsewhere/7", "space": "core@2/item", "reason": "not open yet"}
    ]
    assert world.ok("GET", PATH)["version"] == 1
    assert world.ok("PUT", PATH, "core-team", json=_move(force=True))["version"] == 2


def test_a_version_with_nothing_published_is_not_moved_to(world: World) -> None:
    world.publish(1)
    world.publish(2)
    world.upsert("core@1/item", np.array([1], np.int64), VECTOR)
    world.move("production", 1)
    _another(world, v1=(0, True))
    problem = world.problem("PUT", PATH, "core-team", json=_move(wait_for_readers_seconds=0))
    assert "nothing is published there" in problem["detail"]


def test_a_process_that_is_silent_holds_nobody_up(world: World) -> None:
    _two_versions(world)
    _another(world, v1=(0, True))
    world.clock.advance(reader_processes.LIVE_SECONDS + 1)
    assert world.ok("PUT", PATH, "core-team", json=_move(wait_for_readers_seconds=0))["version"] == 2


def test_the_move_waits_for_a_process_that_opens_it(world: World) -> None:
    _two_versions(world)
    _another(world, v1=(0, True))
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        with world.platform.store.read() as session:
            row = find_row(session, SpaceKey("core", 2, "item"))
        assert row is not None
        assert row.wanted_until is not None, "the others are told what is wanted"
        if len(waits) == 3:
            _another(world, v1=(0, True), v2=(0, False))

    document = AliasMove.model_validate(_move())
    moved = asyncio.run(
        alias_moves.move(world.platform, "core", "production", document, "core-team", sleep=sleep)
    )
    assert (moved.version, len(waits)) == (2, 3)


def test_a_wrong_expectation_is_told_at_once(world: World) -> None:
    _two_versions(world)
    _another(world, v1=(0, True))
    wrong = {"version": 2, "expected_version": 7, "wait_for_readers_seconds": 30}
    assert world.problem("PUT", PATH, "core-team", json=wrong)["code"] == "alias_moved"


def test_the_readers_of_a_space_are_listed(world: World) -> None:
    _two_versions(world)
    readers = "/v1/spaces/core@1/item/readers"
    _another(world, v1=(0, True))
    (one,) = [each for each in world.ok("GET", readers)["items"] if each["reader"] == "other"]
    assert one["process"] == "elsewhere/7"
    assert one["newest"]
    assert one["in_use"]
    assert world.ok("GET", "/v1/spaces/core@1/user/readers") == {"items": [], "next": None}
    assert world.problem("GET", "/v1/spaces/core@1/nothing/readers")["status"] == 404


@pytest.mark.parametrize("seconds", [-1, 31, "soon"])
def test_waits_out_of_bounds_are_refused(world: World, seconds: Any) -> None:
    _two_versions(world)
    problem = world.problem("PUT", PATH, "core-team", json=_move(wait_for_readers_seconds=seconds))
    assert problem["status"] == 422
