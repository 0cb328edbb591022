"""Which engines settings choose, and what people are shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedplate.errors import InvalidRequest
from bedplate_services.supervisor.data_directory import DataDirectory
from bedplate_services.supervisor.engines import Engines, engine_settings, without_password

DIRECTORY = DataDirectory(Path("/data"))


def test_without_settings_everything_is_a_file() -> None:
    engines = Engines.of(DIRECTORY, {})
    assert engines.registry_database == "sqlite:////data/registry.db"
    assert engines.store_database == "sqlite:////data/store.db"
    assert engines.objects == "file:///data/objects"
    assert engines.broker == "filesystem:///data/broker"
    assert engines.shown() == {}


def test_each_setting_replaces_one_engine() -> None:
    engines = Engines.of(DIRECTORY, {"BEDPLATE_BROKER_URL": "redis://:secret@host/3", "BEDPLATE_PORT": "1"})
    assert engines.broker == "redis://:secret@host/3"
    assert engines.store_database == "sqlite:////data/store.db"
    assert engines.chosen == {"broker"}
    assert engines.shown() == {"broker": "redis://:***@host/3"}


def test_an_empty_setting_is_none() -> None:
    environment = {"BEDPLATE_OBJECTS_URL": "", "BEDPLATE_STORE_DATABASE_URL": "sqlite:///x", "HOME": "/root"}
    assert engine_settings(environment) == {"BEDPLATE_STORE_DATABASE_URL": "sqlite:///x"}


def test_objects_in_the_memory_of_each_process_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no process shares with another"):
        Engines.of(DIRECTORY, {"BEDPLATE_OBJECTS_URL": "memory://"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://me:pass@word@db:5432/x?sslmode=require",
            "postgresql+psycopg://me:***@db:5432/x?sslmode=require",
        ),
        ("amqp://guest:guest@host//", "amqp://guest:***@host//"),
        ("s3://bucket?endpoint=http://host:9000", "s3://bucket?endpoint=http://host:9000"),
        ("sqlite:////data/registry.db", "sqlite:////data/registry.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
