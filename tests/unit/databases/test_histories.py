"""What is released stays as it is: revisions are only ever added at the end."""

from __future__ import annotations

import hashlib

import pytest

from bedplate.databases import History
from bedplate_registry.database import HISTORY as REGISTRY
from bedplate_store.database import HISTORY as STORE

# SHA-256 of each revision's file. A new revision adds a line; a line that is there never changes, because
# databases out there have run that file.
RELEASED = {
    "registry": {
        "0001_registry.py": "e7606b8bed9640e21c36b009be597abe21968b18bb39823851dfc99fa846feb2",
        "0002_evaluation_reads.py": "69a124629191739bd5ffd20c175d076fbe5b9c8b18b518acb3f22b443c9e644e",
    },
    "store": {
        "0001_spaces.py": "e9fb32f07868dec5a3d4c20d6280a6eecb86a015009159dd9153adef7f65d888",
        "0002_records.py": "fcddcd3751b27d679b74f054872b380cf93b407c90780530dc71e2d0fbdd5c1b",
        "0003_job_origin.py": "a6d99bbf94e34dc1112a43bf55d88508efce5b986811fd8d18228e3f0fd47480",
    },
}
HISTORIES = pytest.mark.parametrize("history", [REGISTRY, STORE], ids=lambda history: history.name)


@HISTORIES
def test_a_released_revision_is_never_edited(history: History) -> None:
    files = sorted((history.scripts / "versions").glob("*.py"))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == RELEASED[history.name], "write a new revision instead of editing one"


@HISTORIES
def test_the_revisions_are_one_line_in_the_order_of_their_numbers(history: History) -> None:
    files = sorted((history.scripts / "versions").glob("*.py"))
    assert history.revisions == [path.name.partition("_")[0] for path in files]
    assert history.head == history.revisions[-1]


@HISTORIES
def test_a_revision_spells_its_types_out(history: History) -> None:
    """One that imported today's tables would change with them."""
    for path in (history.scripts / "versions").glob("*.py"):
        assert "bedplate" not in path.read_text(), path.name


@HISTORIES
def test_what_a_database_is_to_this_code(history: History) -> None:
    assert history.state(None) == "empty"
    assert history.state(history.head) == "current"
    assert history.state("9999") == "newer"
    assert [history.state(each) for each in history.revisions[:-1]] == ["older"] * (
        len(history.revisions) - 1
    )
