"""Measures now and then how much of the catalogue the spaces that are asked for cover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from bedplate_services.composition import Platform
from bedplate_services.logging import get_logger
from bedplate_store.coverage import coverage

FIRST_AFTER_SECONDS = 10.0
EVERY_SECONDS = 300.0
_log = get_logger(__name__)


def measure(house: Platform, random: np.random.Generator) -> None:
    """Tell the metrics the coverage of every space that this process is asked for."""
    shares: dict[tuple[str, str], float] = {}
    for key, opened in house.readers.opened().items():
        if not opened.in_use:
            continue
        reader = house.readers.get(*key)
        with house.store.read() as session:
            measured = coverage(session, reader, house.now(), random)
        if measured is not None:
            entity, share = measured
            shares[str(key), entity] = share
    house.metrics.coverage(shares)


async def keep_measured(house: Platform, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Measure every five minutes, in another thread, until cancelled."""
    random = np.random.default_rng()
    pause = FIRST_AFTER_SECONDS
    while True:
        await sleep(pause)
        pause = EVERY_SECONDS
        try:
            await asyncio.to_thread(measure, house, random)
        except Exception as error:  # noqa: BLE001  # a database that is away must not end the loop
            _log.warning("coverage cannot be measured", exc_info=error)
