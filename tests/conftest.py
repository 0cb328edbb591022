"""What holds for every test."""

import os
from collections.abc import Generator

import pytest

# As in bedplate_modeling, but before any test module imports torch by itself.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

REQUIRE_SERVERS = "BEDPLATE_REQUIRE_SERVERS"
"""Set (as CI does): a test that skips for want of a server fails instead. Such reasons begin with ``NO ``."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get(REQUIRE_SERVERS) and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("NO "):
            report.outcome = "failed"
            report.longrepr = f"{reason} ({REQUIRE_SERVERS} is set)"
    return report
