"""What the chart's Job does after the migrations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.integration.places import Places

from bedplate_registry import tokens
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services import provisioning
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.shard_assignments import list_moves, read_assignments

TOKEN = "bedplate_" + "t" * 40


@pytest.fixture
def registry(places: Places) -> Iterator[RegistryDatabase]:
    database = RegistryDatabase(places.registry_url)
    yield database
    database.close()


@pytest.fixture
def store(places: Places) -> Iterator[StoreDatabase]:
    database = StoreDatabase(places.store_url)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def settings(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        **places.environment(),
        "BEDPLATE_CACHE_DIR": str(tmp_path / "cache"),
        "BEDPLATE_SPOOL_DIR": str(tmp_path / "spool"),
        "BEDPLATE_ADMIN_TOKEN": TOKEN,
    }.items():
        monkeypatch.setenv(name, value)


def test_the_token_is_an_administrators_and_a_second_run_changes_nothing(
    registry: RegistryDatabase, store: StoreDatabase
) -> None:
    for _ in range(2):
        assert provisioning.main(["--store-node=store-0", "--store-node=store-1"]) == 0
        with registry.read() as session:
            principal = tokens.authenticate(session, TOKEN)
            assert principal.role == "admin"
            assert len(list(tokens.list(session, principal.team))) == 1
        with store.read() as session:
            assert set(read_assignments(session).values()) == {"store-0", "store-1"}
            moves = len(list_moves(session, 1000))
    with store.read() as session:
        history = list_moves(session, 1000)
        assert len(history) == moves == len(read_assignments(session))
        assert {move.moved_by for move in history} == {"provisioning"}


def test_a_further_node_gets_its_share(registry: RegistryDatabase, store: StoreDatabase) -> None:
    assert provisioning.main(["--store-node=store-0"]) == 0
    assert provisioning.main(["--store-node=store-0", "--store-node=store-1"]) == 0
    with store.read() as session:
        served = list(read_assignments(session).values())
    assert served.count("store-0") == served.count("store-1") > 0


def test_without_store_nodes_no_shard_is_assigned(registry: RegistryDatabase, store: StoreDatabase) -> None:
    assert provisioning.main([]) == 0
    with store.read() as session:
        assert read_assignments(session) == {}


def test_a_short_token_is_refused(
    registry: RegistryDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BEDPLATE_ADMIN_TOKEN", "short")
    assert provisioning.main([]) == 1
    assert "needs 32 random characters at least" in capsys.readouterr().err


def test_missing_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BEDPLATE_ADMIN_TOKEN")
    monkeypatch.delenv("BEDPLATE_OBJECTS_URL")
    assert provisioning.main([]) == 1
    assert capsys.readouterr().err == "Set BEDPLATE_OBJECTS_URL, BEDPLATE_ADMIN_TOKEN (docs/settings.md).\n"


def test_a_database_that_is_not_migrated_is_an_error(
    registry: RegistryDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry.engine.begin() as connection:
        connection.execute(text("ALTER TABLE teams RENAME TO away"))
    assert provisioning.main([]) == 1
    said = capsys.readouterr().err
    assert re.search("cannot be reached, or is not migrated: .*(no such table|does not exist)", said)
