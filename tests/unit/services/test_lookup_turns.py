"""Lookups of one turn go together, those of other readers apart; a lone one soon stops waiting."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np

from bedplate.errors import KeyTypeMismatch
from bedplate_services.lookup_turns import LookupTurns
from bedplate_store.readers import LookupResult, SpaceReader


class Reader:
    """The vector of a key is the key; knows the even ones."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def lookup(self, keys: Any, dtype: str) -> LookupResult:
        self.calls.append(len(keys))
        if (keys < 0).any():
            raise KeyTypeMismatch("not of this space.")
        return LookupResult(keys % 2 == 0, keys[:, None].astype(dtype), 3, 4)


def submit(turns: LookupTurns, reader: Reader, outcomes: list[Any], *keys: int) -> None:
    turns.submit(cast(SpaceReader, reader), np.array(keys), "float32", outcomes.append)


def test_each_gets_its_own_part() -> None:
    async def run() -> None:
        turns, reader, other = LookupTurns(), Reader(), Reader()
        outcomes: list[Any] = []
        submit(turns, reader, outcomes, 1, 2)
        submit(turns, reader, outcomes, 3)
        submit(turns, other, outcomes, 4)
        assert outcomes == []
        await asyncio.sleep(0)
        assert [one.vectors[:, 0].tolist() for one in outcomes] == [[1, 2], [3], [4]]
        assert [one.found.tolist() for one in outcomes] == [[False, True], [False], [True]]
        assert {(one.snapshot, one.sequence) for one in outcomes} == {(3, 4)}
        assert (reader.calls, other.calls) == ([3], [1])

    asyncio.run(run())


def test_a_call_has_a_largest_size() -> None:
    async def run() -> None:
        turns, reader = LookupTurns(), Reader()
        outcomes: list[Any] = []
        for size in (500, 300, 1, 2000, 5):
            submit(turns, reader, outcomes, *range(size))
        await asyncio.sleep(0)
        assert reader.calls == [800, 1, 2000, 5]
        assert [len(one.found) for one in outcomes] == [500, 300, 1, 2000, 5]

    asyncio.run(run())


def test_an_error_reaches_all_that_went_together() -> None:
    """The ordinary path, to which they then go, tells whose it is."""

    async def run() -> None:
        turns, reader = LookupTurns(), Reader()
        outcomes: list[Any] = []
        submit(turns, reader, outcomes, 1)
        submit(turns, reader, outcomes, -1)
        await asyncio.sleep(0)
        assert [type(one) for one in outcomes] == [KeyTypeMismatch, KeyTypeMismatch]

    asyncio.run(run())


def test_a_lone_lookup_soon_stops_waiting_and_company_is_found_again() -> None:
    async def run() -> None:
        turns, reader = LookupTurns(), Reader()
        at_once = []
        for _ in range(600):
            outcomes: list[Any] = []
            submit(turns, reader, outcomes, 2)
            at_once.append(len(outcomes))
            await asyncio.sleep(0)
            assert len(outcomes) == 1
        assert at_once[:8] == [0] * 8
        assert at_once[8:264] == [1] * 256
        assert at_once[264:272] == [0] * 8
        reader.calls.clear()
        outcomes = []
        for _ in range(600):
            submit(turns, reader, outcomes, 2)
        await asyncio.sleep(0)
        assert max(reader.calls) > 100

    asyncio.run(run())
