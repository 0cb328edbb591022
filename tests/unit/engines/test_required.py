"""A whole run of pytest fails on any skip where BEDPLATE_REQUIRE_SERVERS says so, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REQUIRE_SERVERS

ROOT = Path(__file__).parents[3]
MODULES = {
    "test_call.py": "import pytest\ndef test_it(): pytest.skip('NO REDIS: not here')",
    "test_mark.py": "import pytest\n@pytest.mark.skip(reason='NO REDIS: not here')\ndef test_it(): pass",
    "test_module.py": "import pytest\npytest.skip('NO REDIS: not here', allow_module_level=True)",
    "test_import.py": "import pytest\npytest.importorskip('bedplate_of_nobody', reason='NO REDIS: not here')",
    "test_expected.py": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False",
}


@pytest.mark.parametrize(
    ("required", "returned", "outcomes"),
    [("", 0, "3 passed, 4 skipped, 1 xfailed"), ("all", 1, "2 failed, 3 passed, 3 errors")],
)
def test_a_skip_fails_the_run_only_where_none_is_allowed(
    required: str, returned: int, outcomes: str, tmp_path: Path
) -> None:
    for name, module in MODULES.items():
        (tmp_path / name).write_text(module + "\n\ndef test_that_passes(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", "--rootdir", tmp_path, "-c", os.devnull, tmp_path],
        cwd=ROOT,
        env={**os.environ, REQUIRE_SERVERS: required},
        capture_output=True,
        text=True,
    )
    assert done.returncode == returned, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(outcomes)
    assert (f"NO REDIS: not here ({REQUIRE_SERVERS} is set)" in done.stdout) is bool(required)
