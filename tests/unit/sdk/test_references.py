from __future__ import annotations

import pytest

from bedplate.errors import InvalidRequest
from bedplate.references import SpaceReference, VersionReference


@pytest.mark.parametrize(
    ("text", "number"), [("core@7", 7), ("core@0012", 12), ("core@production", None), ("core@v7", None)]
)
def test_a_version_is_named_by_number_or_by_alias(text: str, number: int | None) -> None:
    parsed = VersionReference.parse(text)
    assert (parsed.foundation, parsed.number, str(parsed)) == ("core", number, text)


@pytest.mark.parametrize("text", ["core", "core@", "@7", "core@²", "core@٣", "core@7a", "core@-7", "Core@7"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidRequest):
        VersionReference.parse(text)


def test_a_space_stands_behind_its_version() -> None:
    parsed = SpaceReference.parse("core@7/item")
    assert (parsed.version.number, parsed.space, str(parsed)) == (7, "item", "core@7/item")
    for text in ("core@7", "core@7/", "core@7/Item", "core@²/item"):
        with pytest.raises(InvalidRequest):
            SpaceReference.parse(text)
