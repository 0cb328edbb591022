"""The API tells how much of the catalogue the spaces that it is asked for cover."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from bedplate_services import coverage
from bedplate_services.coverage import EVERY_SECONDS, FIRST_AFTER_SECONDS, keep_measured, measure
from bedplate_services.metrics import PrometheusMetrics

from .conftest import World

RATIO = 'bedplate_api_space_coverage_ratio{entity="item",space="core@1/item"}'


def told(metrics: PrometheusMetrics) -> list[str]:
    return [line for line in metrics.render()[0].decode().splitlines() if line.startswith(RATIO)]


@pytest.fixture
def filled(world: World) -> World:
    """Four items, of which three have a vector."""
    world.publish()
    world.ok("PUT", "/v1/items", json={"items": [{"key": str(number)} for number in range(4)]})
    world.upsert("core@1/item", np.arange(3), np.ones((3, 4), np.float16))
    return world


def test_a_space_that_is_asked_for_is_measured(filled: World) -> None:
    metrics = PrometheusMetrics("api")
    house = replace(filled.platform, metrics=metrics)
    measure(house, np.random.default_rng(1))
    assert told(metrics) == [f"{RATIO} 0.75"]


def test_it_is_measured_again_and_again_and_a_failure_ends_nothing(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, pauses = PrometheusMetrics("api"), []
    house = replace(filled.platform, metrics=metrics)

    def away(*_arguments: object) -> None:
        raise OSError("the database is away")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            assert told(metrics) == [f"{RATIO} 0.75"]
            monkeypatch.setattr(coverage, "coverage", away)
        if len(pauses) == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep_measured(house, sleep))
    assert pauses == [FIRST_AFTER_SECONDS, *[EVERY_SECONDS] * 3]
