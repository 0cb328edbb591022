"""What holds for every test: the engines, and what it means that one is absent."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.engines import (
    CPU_TORCH,
    ENGINES,
    GPU,
    PG_DUMP,
    PROMTOOL,
    S3,
    TOOLS,
    Absent,
    Engine,
    PostgreSQL,
    RabbitMQ,
    Redis,
    Tool,
)

# As in bedplate_modeling, but before any test module imports torch by itself.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A platform that a test starts must not find the settings of one that somebody works with.
for _name in [name for name in os.environ if name.startswith("BEDPLATE_")]:
    if not _name.startswith(("BEDPLATE_TEST_", "BEDPLATE_REQUIRE_", "BEDPLATE_CACHE")):
        del os.environ[_name]

REQUIRE_SERVERS = "BEDPLATE_REQUIRE_SERVERS"
"""``make test-all`` sets it to ``all``: a test that is skipped fails, whatever for. A list, ``redis,s3``, has
the engines and tools that must be there: a test may be skipped for want of another one, and only for that."""


def pytest_configure() -> None:
    # Told to end, as by timeout(1) or CI, pytest ends as by Ctrl-C: no private server is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_unless_it_may_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield  # a whole module may be skipped, as by importorskip
    _fail_unless_it_may_skip(report)
    return report


def _fail_unless_it_may_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """What is expected to fail counts as skipped, as it does for pytest."""
    if not report.skipped:
        return
    reason = "it is expected to fail"
    if isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    if not may_skip(reason, os.environ.get(REQUIRE_SERVERS, "")):
        vars(report).pop("wasxfail", None)  # with it, pytest would count no failure
        report.outcome = "failed"
        report.longrepr = f"{reason} ({REQUIRE_SERVERS} is set)"


def may_skip(reason: str, required: str) -> bool:
    """Whether a test may be skipped for this reason, given the value of BEDPLATE_REQUIRE_SERVERS."""
    if required in ("", "all"):
        return not required
    absent = [name for name in (*ENGINES, *TOOLS) if reason.startswith(f"NO {name.upper()}:")]
    return bool(absent) and absent[0] not in required.split(",")


EngineT = TypeVar("EngineT", bound=Engine)


def _running(engine: EngineT) -> Iterator[EngineT]:
    try:
        engine.start()
    except Absent as absent:
        pytest.skip(str(absent))
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    yield from _running(PostgreSQL())


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    yield from _running(Redis())


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    yield from _running(RabbitMQ())


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    yield from _running(S3())


@pytest.fixture(params=["filesystem", "redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a broker of each kind: empty, and nobody else's."""
    if request.param == "filesystem":
        yield f"filesystem://{tmp_path / 'broker'}"
        return
    engine: Redis | RabbitMQ = request.getfixturevalue(request.param)
    with engine.database() if isinstance(engine, Redis) else engine.virtual_host() as url:
        yield url


def _installed(tool: Tool) -> Path:
    try:
        return tool.find()
    except Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _installed(PROMTOOL)


@pytest.fixture(scope="session")
def pg_dump() -> Path:
    return _installed(PG_DUMP)


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of models, of a machine that has one."""
    _installed(GPU)
    return "cuda"


@pytest.fixture(scope="session")
def cpu_torch() -> dict[str, str]:
    """Variables by which uv finds PyTorch's CPU build."""
    try:
        return CPU_TORCH.find()
    except Absent as absent:
        pytest.skip(str(absent))
