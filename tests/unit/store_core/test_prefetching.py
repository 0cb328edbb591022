"""What a process opens ahead, and who holds up an alias that is to move."""

from __future__ import annotations

import pytest

from bedplate_store.prefetching import Openable, ahead
from bedplate_store.reader_processes import OpenSpace, ReaderProcess, Target, Unready, unready
from bedplate_store.spaces import SpaceKey


def key(version: int, space: str = "item", foundation: str = "core") -> SpaceKey:
    return SpaceKey(foundation, version, space)


def published(version: int, space: str = "item", wanted: bool = False, snapshot: int = 1) -> Openable:
    return Openable(key(version, space), snapshot, wanted)


@pytest.mark.parametrize(
    ("served", "known", "opened"),
    [
        ({7}, [published(7)], set()),
        ({7}, [published(7), published(8)], {8}),
        ({7}, [published(6), published(7)], set()),
        ({7}, [published(8), published(9), published(10)], {10}),
        ({7, 9}, [published(8), published(9), published(10)], {10}),
        ({7, 9}, [published(8), published(9)], set()),
        ({7}, [published(6, wanted=True), published(7), published(8)], {6, 8}),
        ({7}, [published(8, snapshot=0)], set()),
        ({7}, [published(8, snapshot=0, wanted=True)], {8}),
        (set(), [published(8), published(9, wanted=True)], set()),
        ({7}, [published(8, "user")], set()),
    ],
)
def test_the_newest_above_what_is_served_and_what_is_wanted(
    served: set[int], known: list[Openable], opened: set[int]
) -> None:
    assert ahead({key(version) for version in served}, known) == {key(version) for version in opened}


def reader(process: str = "a/1", *, follows: bool = True, **spaces: tuple[int, bool]) -> ReaderProcess:
    """``v7=(2, True)``: core@7/item open at snapshot 2, in use."""
    opened = {key(int(name[1:])): OpenSpace(at, 0, in_use) for name, (at, in_use) in spaces.items()}
    return ReaderProcess(process, "api", process, "http://a", follows, opened)


@pytest.mark.parametrize(
    ("one", "target", "reason"),
    [
        (reader(v7=(1, True), v8=(2, False)), 2, None),
        (reader(v7=(1, True)), 2, "not open yet"),
        (reader(v7=(1, True), v8=(1, False)), 2, "at snapshot 1, not yet 2"),
        (reader(v7=(1, True)), None, "nothing is published there"),
        (reader(v7=(1, False)), 2, None),
        (reader(v6=(1, True)), 2, None),
        (reader(v7=(1, True), v8=(0, False)), 0, None),
        (reader(), 2, None),
    ],
)
def test_only_those_who_serve_the_alias_hold_it_up(
    one: ReaderProcess, target: int | None, reason: str | None
) -> None:
    expected = [] if reason is None else [Unready("a/1", "core@8/item", reason)]
    assert unready([one], 7, [Target(key(8), target)]) == expected


def test_everybody_who_lacks_it_is_named() -> None:
    ready = reader("b/2", v7=(1, True), v8=(1, False))
    found = unready([reader(v7=(1, True)), ready, reader("c/3", v7=(3, True))], 7, [Target(key(8), 1)])
    assert [one.process for one in found] == ["a/1", "c/3"]
