"""Which reader answers: fresh, stale for a moment, never older."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from bedplate.errors import InvalidRequest, NotFound
from bedplate.references import VersionReference
from bedplate_services import directory
from bedplate_services.directory import SpaceDirectory
from bedplate_store.spaces import SpaceKey


class Readers:
    """Numbers what it opens; ``gate`` holds an opening back."""

    def __init__(self) -> None:
        self.opened = 0
        self.gate = threading.Event()
        self.gate.set()
        self.missing = False
        self.refreshed: dict[str, str] = {}

    def get(self, foundation: str, version: int, space: str) -> Any:
        assert self.gate.wait(10)
        if self.missing:
            raise NotFound("Gone.")
        self.opened += 1
        return f"{foundation}@{version}/{space} #{self.opened}"

    def current(self, reader: Any) -> Any:
        return self.refreshed.get(reader, reader)


class Setting:
    def __init__(self, stale_seconds: float = 1.0) -> None:
        self.now = 0.0
        self.readers = Readers()
        self.directory = SpaceDirectory(
            None,  # type: ignore[arg-type]  # numbers need no registry
            self.readers,  # type: ignore[arg-type]  # all it is asked for
            fresh_seconds=0.25,
            stale_seconds=stale_seconds,
            clock=lambda: self.now,
        )

    async def reader(self, at: float) -> Any:
        self.now = at
        return (await self.directory.locate("core@7", "item")).reader


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_fresh_stale_and_too_old(setting: Setting) -> None:
    async def run() -> None:
        assert await setting.reader(0.0) == "core@7/item #1"
        assert await setting.reader(0.24) == "core@7/item #1"
        setting.readers.gate.clear()
        assert await setting.reader(0.5) == "core@7/item #1", "the old one serves while the new one opens"
        setting.readers.gate.set()
        assert await setting.reader(1.6) == "core@7/item #2", "too old: waits"

    asyncio.run(run())


def test_a_reader_that_was_refreshed_answers_at_once(setting: Setting) -> None:
    async def run() -> None:
        assert await setting.reader(0.0) == "core@7/item #1"
        setting.readers.gate.clear()
        setting.readers.refreshed["core@7/item #1"] = "with a write"
        assert await setting.reader(0.01) == "with a write", (
            "fresh is what the reference means, not the reader"
        )
        setting.readers.refreshed["with a write"] = "with another"
        assert await setting.reader(0.5) == "with another", "also while what it means is asked for"
        setting.readers.gate.set()

    asyncio.run(run())


def test_many_at_once_open_once(setting: Setting) -> None:
    async def run() -> None:
        found = await asyncio.gather(*(setting.reader(0.0) for _ in range(20)))
        assert set(found) == {"core@7/item #1"}

    asyncio.run(run())


def test_forgetting_while_one_is_being_opened(setting: Setting) -> None:
    async def run() -> None:
        setting.readers.gate.clear()
        before = asyncio.create_task(setting.reader(0.0))
        await asyncio.sleep(0)
        setting.directory.forget()
        setting.readers.gate.set()
        await before
        assert setting.readers.opened == 1
        await setting.reader(0.0)
        assert setting.readers.opened == 2, "what was opened before the write is not used after it"

    asyncio.run(run())


def test_an_answer_nobody_may_use_any_more_lets_its_reader_go() -> None:
    async def run() -> None:
        setting = Setting(stale_seconds=0.01)
        address = ("core@7", "item")
        await setting.reader(0.0)
        setting.readers.refreshed["core@7/item #1"] = "with a write"
        await setting.reader(0.0)
        assert setting.directory._located[address].reader == "with a write"
        await asyncio.sleep(0.05)
        assert address not in setting.directory._located

    asyncio.run(run())


def test_errors_are_not_remembered(setting: Setting) -> None:
    async def run() -> None:
        setting.readers.missing = True
        for _ in range(2):
            with pytest.raises(NotFound):
                await setting.reader(0.0)
        setting.readers.missing = False
        assert await setting.reader(0.0) == "core@7/item #1"
        with pytest.raises(InvalidRequest):
            await setting.directory.locate("core", "item")

    asyncio.run(run())


class Registry:
    """``core@production`` is version 7, until it is deleted or the database is away."""

    def __init__(self) -> None:
        self.away = False
        self.deleted = False

    @contextmanager
    def read(self) -> Iterator[Any]:
        if self.away:
            raise OperationalError("SELECT", {}, ConnectionError("refused"))
        yield self

    def resolve(self, session: Any, reference: VersionReference) -> Any:
        assert session is self
        if self.deleted:
            raise NotFound("Gone.")
        return SimpleNamespace(version=7)


def test_an_alias_means_what_it_meant_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, now = Registry(), [0.0]
    monkeypatch.setattr(directory.versions, "resolve", registry.resolve)
    spaces = SpaceDirectory(
        registry,  # type: ignore[arg-type]  # all it is asked for
        Readers(),  # type: ignore[arg-type]  # the same
        outage_seconds=60.0,
        clock=lambda: now[0],
    )
    registry.away = True
    with pytest.raises(OperationalError):
        spaces.resolve("core@production")
    registry.away = False
    assert spaces.resolve("core@production") == ("core", 7)
    registry.away, now[0] = True, 59.0
    assert spaces.resolve("core@production") == ("core", 7)
    now[0] = 60.0
    with pytest.raises(OperationalError):
        spaces.resolve("core@production")
    registry.away = False
    assert spaces.resolve("core@production") == ("core", 7)
    registry.deleted = True
    with pytest.raises(NotFound):
        spaces.resolve("core@production")
    registry.away = True
    with pytest.raises(OperationalError):
        spaces.resolve("core@production")


def test_shards_are_asked_for_where_they_were_while_the_database_is_away() -> None:
    """And a space that lies here is still known not to lie with store nodes."""
    now, away = [0.0], [False]
    remote = {"user": object(), "item": None}

    class Routing:
        def find(self, key: SpaceKey) -> Any:
            if away[0]:
                raise OperationalError("SELECT", {}, ConnectionError("refused"))
            return remote[key.space]

    spaces = SpaceDirectory(
        None,  # type: ignore[arg-type]  # numbers need no registry
        Readers(),  # type: ignore[arg-type]  # all it is asked for
        routing=Routing(),  # type: ignore[arg-type]  # the same
        fresh_seconds=0.25,
        outage_seconds=60.0,
        clock=lambda: now[0],
    )

    async def readers() -> list[Any]:
        return [(await spaces.locate("core@7", space)).reader for space in remote]

    async def run() -> None:
        assert await readers() == [remote["user"], "core@7/item #1"]
        away[0], now[0] = True, 59.0
        assert await readers() == [remote["user"], "core@7/item #2"]
        with pytest.raises(OperationalError):
            spaces.newest(SpaceKey("core", 7, "user"))
        now[0] = 120.0
        with pytest.raises(OperationalError):
            await readers()

    asyncio.run(run())
