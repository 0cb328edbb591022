"""What the suites run on: SQLite and local files, and PostgreSQL and S3.

A suite whose subject keeps data takes it from ``ground``, ``places`` or ``objects``, and runs on both. Where
the engine cannot matter, a module or a test gives ``engines`` one value. tests/unit/house/test_suites.py
lists what runs on one, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engines import S3, PostgreSQL
from tests.integration.places import FILES, SERVERS, Ground, OnFiles, OnServers, Places, migrate

from bedplate_store.objects import ObjectStore


@pytest.fixture(scope="module", params=[FILES, SERVERS])
def engines(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def on_files(tmp_path_factory: pytest.TempPathFactory) -> OnFiles:
    folder = tmp_path_factory.mktemp("migrated")
    migrate(f"sqlite:///{folder / 'registry.db'}", f"sqlite:///{folder / 'store.db'}")
    return OnFiles(folder)


@pytest.fixture(scope="session")
def on_servers(postgresql: PostgreSQL, s3: S3) -> Iterator[OnServers]:
    with postgresql.database() as registry, postgresql.database() as store, s3.bucket() as bucket_url:
        migrate(registry, store)
        yield OnServers(postgresql, (registry, store), s3, bucket_url)


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest, engines: str) -> Ground:
    found: Ground = request.getfixturevalue("on_files" if engines == FILES else "on_servers")
    return found


@pytest.fixture
def places(ground: Ground, tmp_path: Path) -> Iterator[Places]:
    """Of one test."""
    with ground.places(tmp_path) as made:
        yield made


@pytest.fixture
def objects(ground: Ground, tmp_path: Path) -> ObjectStore:
    """Of one test."""
    return ground.objects(tmp_path).open()
