import json
import stat
from pathlib import Path

import pytest

from bedplate_services.supervisor.data_directory import (
    DataDirectory,
    DataDirectoryInUse,
    DirectoryLock,
    write_private,
)


def test_everything_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory.at(tmp_path / "data")
    directory.create()
    secret = directory.read_or_make_secret(directory.admin_token, "bedplate_")
    assert stat.S_IMODE(directory.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.admin_token.stat().st_mode) == 0o600
    assert secret.startswith("bedplate_")
    assert len(secret) > 40


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    directory = DataDirectory.at(tmp_path)
    first = directory.read_or_make_secret(directory.signing_key)
    assert directory.read_or_make_secret(directory.signing_key) == first


def test_the_environment_names_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEDPLATE_DATA", str(tmp_path / "elsewhere"))
    assert DataDirectory.at(None).root == tmp_path / "elsewhere"
    monkeypatch.delenv("BEDPLATE_DATA")
    assert DataDirectory.at(None).root == Path("~/.bedplate").expanduser()


def test_a_second_lock_is_refused_and_says_who_has_it(tmp_path: Path) -> None:
    directory = DataDirectory.at(tmp_path)
    with DirectoryLock(directory):
        write_private(directory.processes, json.dumps({"supervisor": 4711, "url": "http://127.0.0.1:8700"}))
        with pytest.raises(DataDirectoryInUse, match=r"process 4711, http://127\.0\.0\.1:8700.*--data"):
            DirectoryLock(directory).acquire()
    with DirectoryLock(directory):
        pass
