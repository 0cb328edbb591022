"""Where the children of `bedplate up` serve their metrics: of several on one machine each needs a port."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedplate_services.supervisor.platform import Platform

SETTING = "BEDPLATE_METRICS_PORT"


def ports(folder: Path, environment: dict[str, str]) -> dict[str, str | None]:
    """Of reconciler and workers, as far as it is not the environment's own."""
    platform = Platform(folder, workers=2, environment=environment)
    return {
        child.name: child.environment.get(SETTING, environment.get(SETTING))
        for child in platform._specifications()
        if child.name.startswith(("worker", "reconciler"))
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({SETTING: "9100"}, {"reconciler": "9100", "worker": "9101", "worker-2": "9102"}),
        ({SETTING: "0"}, {"reconciler": "0", "worker": "0", "worker-2": "0"}),
        ({}, {"reconciler": None, "worker": None, "worker-2": None}),
    ],
)
def test_the_reconciler_has_the_port_that_was_set_and_workers_the_next_ones(
    tmp_path: Path, given: dict[str, str], expected: dict[str, str | None]
) -> None:
    assert ports(tmp_path, given) == expected
