"""``python -m bedplate_services.migrations``, and who refuses to start on an older schema."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services import migrations
from bedplate_store.database import Database as StoreDatabase

from .conftest import NewDatabase

PATIENCE_SECONDS = 120
NOBODY_LISTENS = "postgresql+psycopg://postgres@127.0.0.1:1/none"
PROCESSES = (
    "bedplate_services.api",
    "bedplate_services.inference",
    "bedplate_services.shards.node",
    "bedplate_workers",
    "bedplate_workers.reconciler",
    "bedplate_workers.sealer",
)


def environment(registry: str, store: str) -> dict[str, str]:
    return {**os.environ, "BEDPLATE_REGISTRY_DATABASE_URL": registry, "BEDPLATE_STORE_DATABASE_URL": store}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bedplate_services.migrations", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_of_several_that_start_at_once_one_migrates_and_those_who_wait_go_on(
    new_database: NewDatabase,
) -> None:
    env = environment(new_database(), new_database())
    waiting = start(env, "wait", "--timeout-seconds", str(PATIENCE_SECONDS))
    assert waiting.stdout is not None
    assert "the registry database is empty" in waiting.stdout.readline()
    migrating = [start(env, "upgrade") for _ in range(4)]
    told = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in migrating]
    assert [process.returncode for process in migrating] == [0] * 4
    head = StoreDatabase("sqlite://").history.head
    assert sorted("store: empty -> " in each for each in told) == [False, False, False, True]
    assert sorted(f"store: is at {head}" in each for each in told) == [False, True, True, True]
    assert waiting.communicate(timeout=PATIENCE_SECONDS)[0].endswith("both databases are ready\n")
    assert waiting.returncode == 0
    current = start(env, "current")
    assert f"store: {head} (current; this release: {head})" in current.communicate()[0]


class Time:
    """Passes while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_waiting_ends_with_the_time_and_says_what_was_lacking(
    new_database: NewDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, store = RegistryDatabase(new_database()), StoreDatabase(new_database())
    registry.migrate()
    store.migrate(store.history.revisions[0])
    time, told = Time(), list[str]()
    assert migrations.wait((registry, store), 30, told.append, time.clock, time.sleep) == 1
    assert len(told) == 1, "the same reason is told once"
    assert "store database is at revision 0001" in told[0]
    assert "gave up after 30 s: the store database is at revision 0001" in capsys.readouterr().err
    assert time.seconds == 30
    store.migrate()
    assert migrations.wait((registry, store), 30, told.append, time.clock, time.sleep) == 0
    registry.close()
    store.close()


def test_waiting_outlives_a_server_that_does_not_answer_yet(capsys: pytest.CaptureFixture[str]) -> None:
    away, time, told = RegistryDatabase(NOBODY_LISTENS), Time(), list[str]()
    assert migrations.wait((away,), 3, told.append, time.clock, time.sleep) == 1
    assert "the registry database does not answer" in told[0]
    assert "does not answer" in capsys.readouterr().err
    away.close()


def test_upgrading_waits_for_servers_that_start_beside_it_and_not_for_their_schema(
    new_database: NewDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    time, told = Time(), list[str]()
    away, empty = StoreDatabase(NOBODY_LISTENS), RegistryDatabase(new_database())
    assert migrations.wait_for_answers((empty, away), 3, told.append, time.clock, time.sleep) == 1
    assert len(told) == 1
    assert "the store database does not answer" in told[0]
    assert "gave up after 3 s" in capsys.readouterr().err
    assert migrations.wait_for_answers((empty,), 3, told.append, time.clock, time.sleep) == 0
    assert len(told) == 1
    away.close()
    empty.close()


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({}, "Set BEDPLATE_REGISTRY_DATABASE_URL"),
        (environment(NOBODY_LISTENS, NOBODY_LISTENS), "a database cannot be reached"),
    ],
)
def test_the_command_says_what_is_wrong(
    env: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("REGISTRY", "STORE"):
        monkeypatch.delenv(f"BEDPLATE_{name}_DATABASE_URL", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert migrations.main(["upgrade"]) == 1
    assert says in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        migrations.main(["--help"])
    assert ended.value.code == 0
    assert "python -m bedplate_services.migrations wait --timeout-seconds 300" in capsys.readouterr().out


@pytest.mark.parametrize("module", PROCESSES)
def test_no_process_starts_on_an_older_schema(tmp_path: Path, module: str) -> None:
    registry, store = f"sqlite:///{tmp_path / 'registry.db'}", f"sqlite:///{tmp_path / 'store.db'}"
    for url, kind, revision in ((registry, RegistryDatabase, "head"), (store, StoreDatabase, "0001")):
        database = kind(url)
        database.migrate(revision)
        database.close()
    env = {
        **environment(registry, store),
        "BEDPLATE_OBJECTS_URL": f"file://{tmp_path}/objects",
        "BEDPLATE_BROKER_URL": f"filesystem://{tmp_path}/broker",
        "BEDPLATE_CACHE_DIR": str(tmp_path / "cache"),
        "BEDPLATE_SPOOL_DIR": str(tmp_path / "spool"),
        "BEDPLATE_STORE_NODE": "node-1",
        "BEDPLATE_SHARD_SECRET": "secret",
    }
    done = subprocess.run(
        [sys.executable, "-m", module], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 1
    assert "The store database is at revision 0001, and this release needs revision 0003" in done.stderr
    assert "python -m bedplate_services.migrations upgrade" in done.stderr
    assert "Traceback" not in done.stderr
