from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("sqlalchemy", "torch", "faiss", "celery", "fastapi", "alembic", "minio", "safetensors")


@pytest.mark.parametrize("module", ["bedplate", "bedplate.cli", "bedplate.datasets"])
def test_the_ground_floor_loads_nothing_heavy(module):
    code = f"""
import sys
import {module}
if "cli" in {module!r}:
    {module}.create_app()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
