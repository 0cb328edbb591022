"""Moving an alias so that nobody notices: first every process that follows it opens the new version.

The registry knows versions and the store knows readers; neither knows the other, so they meet here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import timedelta

from starlette.concurrency import run_in_threadpool

from bedplate.errors import NotFound, ReadersNotReady
from bedplate.references import VersionReference
from bedplate.wire.registry import Alias, AliasMove
from bedplate_registry import aliases, versions
from bedplate_services.composition import Platform
from bedplate_store import reader_processes, shard_nodes
from bedplate_store.reader_processes import Unready

_POLL_SECONDS = 0.05
_WANTED = timedelta(minutes=1)
_NAMED_MAX = 3


async def move(
    house: Platform,
    foundation: str,
    alias: str,
    document: AliasMove,
    moved_by: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Alias:
    """Wait for the readers, then move, compare-and-swap. Who waits holds no thread.

    Raises:
        AliasMoved, VersionNotReady, NotFound: see :func:`bedplate_registry.aliases.move`.
        ReadersNotReady: a process that serves the alias's spaces has not opened the version in time.
    """
    current = await run_in_threadpool(_points_at, house, foundation, alias, document)
    if current is not None and current == document.expected_version and not document.force:
        await _wait_for_readers(house, foundation, current, document, sleep)
    return await run_in_threadpool(_move, house, foundation, alias, document, moved_by)


def _move(house: Platform, foundation: str, alias: str, document: AliasMove, moved_by: str) -> Alias:
    moved = house.registry.transact(
        lambda session: aliases.move(session, foundation, alias, document, moved_by, house.now())
    )
    house.directory.forget()
    return moved


def _points_at(house: Platform, foundation: str, alias: str, document: AliasMove) -> int | None:
    """Where the alias points now. None: there is nothing to wait for, as it is not set and nobody can be
    reading through it, or it will not move.
    """
    with house.registry.read() as session:
        target = versions.resolve(session, VersionReference(foundation, str(document.version)))
        if target.state != "ready":
            return None
        try:
            return aliases.get(session, foundation, alias).version
        except NotFound:
            return None


async def _wait_for_readers(
    house: Platform,
    foundation: str,
    current: int,
    document: AliasMove,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + document.wait_for_readers_seconds
    asked = False
    while lacking := await run_in_threadpool(_lacking, house, foundation, current, document.version):
        if not asked:
            await run_in_threadpool(_want, house, foundation, document)
            asked = True
        if loop.time() >= deadline:
            raise _not_ready(foundation, document, lacking)
        await sleep(_POLL_SECONDS)


def _want(house: Platform, foundation: str, document: AliasMove) -> None:
    until = house.now() + timedelta(seconds=document.wait_for_readers_seconds) + _WANTED
    house.store.transact(lambda session: reader_processes.want(session, foundation, document.version, until))


def _lacking(house: Platform, foundation: str, current: int, target: int) -> list[Unready]:
    with house.store.read() as session:
        now = house.now()
        processes = reader_processes.unready_for(session, foundation, current, target, now)
        if house.routing is None:
            return processes
        return processes + shard_nodes.unready_for(session, foundation, current, target, now)


def _not_ready(foundation: str, document: AliasMove, lacking: list[Unready]) -> ReadersNotReady:
    named = "; ".join(f"{one.process}: {one.space}, {one.reason}" for one in lacking[:_NAMED_MAX])
    more = f"; and {len(lacking) - _NAMED_MAX} more" if len(lacking) > _NAMED_MAX else ""
    return ReadersNotReady(
        f"Not every reader has {foundation}@{document.version} open after "
        f"{document.wait_for_readers_seconds:g} s ({named}{more}). They go on opening it: try again in a "
        "moment, embed what is not published, or move with force and let first requests wait.",
        readers=[asdict(one) for one in lacking],
    )
