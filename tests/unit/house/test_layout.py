"""The house: what may lie where. Import directions are held by import-linter (``make imports``)."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = {
    "sdk": "bedplate",
    "modeling": "bedplate_modeling",
    "registry": "bedplate_registry",
    "embedding_store": "bedplate_store",
    "workers": "bedplate_workers",
    "services": "bedplate_services",
}
HEAVY = ["sqlalchemy", "alembic", "torch", "faiss", "celery", "fastapi", "minio"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_top_level_folders_hold_one_package_and_no_modules(folder: str) -> None:
    loose = [path.name for path in (ROOT / folder).iterdir() if path.suffix == ".py"]
    assert loose == [], f"{folder}/ would become a package of its own"
    assert (ROOT / folder / FOLDERS[folder] / "__init__.py").is_file()
    assert (ROOT / folder / FOLDERS[folder] / "py.typed").is_file()


def test_the_wheel_ships_the_six_packages() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == [f"{f}/{p}" for f, p in FOLDERS.items()]


def test_the_sdk_imports_none_of_the_heavy_libraries() -> None:
    code = f"import bedplate, bedplate.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_taking_checkpoints_in_needs_no_torch() -> None:
    modules = "bedplate_modeling.checkpoint_layout, bedplate_services.api"
    code = f"import {modules}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_file_of_code_refers_to_a_folder_outside_the_repository() -> None:
    suspicious = ["." * 2 + "/shared", "/" + "work/main"]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for folder in [*FOLDERS, "tests", "benchmarks", "docs", ".ci"]
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".toml", ""} and path.is_file()
        for word in suspicious
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
