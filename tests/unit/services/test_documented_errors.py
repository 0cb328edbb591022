"""docs/errors.md lists every error as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from bedplate.errors import ERRORS_BY_CODE, BedplateError
from bedplate_services.problems import STATUS_BY_CODE

DOCUMENT = Path(__file__).parents[3] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_the_table_has_the_code_status_class_and_title_of_every_error() -> None:
    documented = {row[0]: (int(row[1]), row[2], row[3]) for row in ROW.findall(DOCUMENT.read_text())}
    kinds: dict[str, type[BedplateError]] = dict(ERRORS_BY_CODE)
    expected = {
        code: (status, kinds[code].__name__, kinds[code].title) for code, status in STATUS_BY_CODE.items()
    }
    assert documented == expected


def test_every_row_says_what_to_do() -> None:
    rows = ROW.findall(DOCUMENT.read_text())
    assert [row[0] for row in rows] == list(STATUS_BY_CODE), "each code once, in the order of the table"
    assert all(row[4].strip() for row in rows)
