"""Tokens of writes: opaque to clients, so whatever does not come from an answer is refused."""

from __future__ import annotations

import pytest

from bedplate.errors import InvalidRequest
from bedplate_store.spaces import SpaceKey
from bedplate_store.write_tokens import WriteToken


def test_a_token_comes_back() -> None:
    token = WriteToken(SpaceKey("core", 7, "item"), 12)
    assert WriteToken.parse(str(token)) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        ":12",
        "core@7/item",
        "core@7/item:",
        "core@7/item:0",
        "core@7/item:-1",
        "core@7/item:1.5",
        "core@7/item:¹²",
        f"core@7/item:{2**63}",
        f"core@7/item:{'9' * 5000}",
        "core@production/item:12",
        "item:12",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        WriteToken.parse(text)
