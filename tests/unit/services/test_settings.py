"""What a process does if nobody tells it otherwise, and what its settings give away."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError

from bedplate_services import cli
from bedplate_services.settings import Settings
from bedplate_services.supervisor.platform import Platform


def _settings(folder: Path, **more: str) -> Settings:
    return Settings(
        registry_database_url="sqlite://",
        store_database_url="sqlite://",
        objects_url="memory://",
        cache_dir=folder,
        spool_dir=folder,
        **more,  # type: ignore[arg-type]  # texts, which pydantic converts
    )


def test_everything_listens_on_loopback_by_default(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    assert (settings.host, settings.inference_host) == ("127.0.0.1", "127.0.0.1")
    for start in (cli.up, Platform):
        assert inspect.signature(start).parameters["host"].default == "127.0.0.1"


def test_secrets_are_not_in_what_settings_print(tmp_path: Path) -> None:
    settings = _settings(tmp_path, signing_key="very-secret", s3_secret_key="very-secret")
    assert "very-secret" not in repr(settings)


def test_several_processes_that_sign_do_not_start_without_a_common_key(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="set BEDPLATE_SIGNING_KEY"):
        _settings(tmp_path, api_processes="2")
    assert _settings(tmp_path, api_processes="2", signing_key="one for both").api_processes == 2


def test_paths_of_this_machine_are_not_told_by_default(tmp_path: Path) -> None:
    assert not _settings(tmp_path).local_paths
