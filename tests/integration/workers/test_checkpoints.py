"""Checkpoints on their way from object storage into a worker's memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedplate.errors import NotFound, ObjectDamaged
from bedplate.wire.registry import Version
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints


def files_of(bench: Any, folder: Path) -> CheckpointFiles:
    return CheckpointFiles(bench.workplace.registry, bench.workplace.objects, folder)


def test_the_files_arrive_as_they_were_published(bench: Any, foundation: Version, tmp_path: Path) -> None:
    folder = files_of(bench, tmp_path / "cache").fetch("core", 1)
    assert folder.name == foundation.digest
    for file in foundation.files:
        assert (folder / file.name).read_bytes() == (tmp_path / "core-1" / file.name).read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing half-done is left"


def test_what_is_on_this_machine_is_not_fetched_again(
    bench: Any, foundation: Version, tmp_path: Path
) -> None:
    files = files_of(bench, tmp_path / "cache")
    folder = files.fetch("core", 1)
    for file in foundation.files:
        bench.workplace.objects.delete(f"checkpoints/{file.sha256}")
    assert files.fetch("core", 1) == folder


def test_other_bytes_than_were_published_are_refused_and_not_kept(
    bench: Any, foundation: Version, tmp_path: Path
) -> None:
    weights = next(file for file in foundation.files if file.name == "model.safetensors")
    bench.workplace.objects.put(f"checkpoints/{weights.sha256}", b"tampered with")
    with pytest.raises(ObjectDamaged, match=r"model\.safetensors of core@1 is damaged"):
        files_of(bench, tmp_path / "cache").fetch("core", 1)
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


@pytest.mark.usefixtures("foundation")
def test_an_unknown_version_is_not_found(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        files_of(bench, tmp_path / "cache").fetch("core", 9)


@pytest.mark.usefixtures("foundation")
def test_a_model_is_loaded_once(bench: Any, tmp_path: Path) -> None:
    loads: list[Path] = []

    def load(folder: Path) -> str:
        loads.append(folder)
        return folder.name

    checkpoints = Checkpoints(files_of(bench, tmp_path / "cache"), load)
    assert checkpoints.model("core", 1) == checkpoints.model("core", 1)
    assert len(loads) == 1


class Shelf:
    """Stands for ``CheckpointFiles`` where only the names matter."""

    def fetch(self, foundation: str, number: int) -> Path:
        return Path(f"{foundation}@{number}")


def test_the_model_not_used_for_longest_makes_room() -> None:
    loads: list[str] = []

    def load(folder: Path) -> str:
        loads.append(str(folder))
        return str(folder)

    checkpoints = Checkpoints(Shelf(), load, capacity=2)  # type: ignore[arg-type]  # a stand-in, see above
    for number in (1, 2, 1, 3, 1, 2):
        checkpoints.model("core", number)
    assert loads == ["core@1", "core@2", "core@3", "core@2"]
