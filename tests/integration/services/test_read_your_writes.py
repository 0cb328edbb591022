"""A lookup or search that carries the token of a write sees it, or says why it cannot."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bedplate.codecs import ARROW, RAW, encode_keys_raw

KEYS = np.array([1, 2, 3])
VECTORS = np.eye(4, dtype=np.float32)[:3]
LOOKUP = "/v1/spaces/core@1/item/lookup"
SEARCH = "/v1/spaces/core@1/item/search"
AFTER = "x-bedplate-after"


@pytest.fixture
def still(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A version with a space whose readers look for nothing newer by themselves."""
    world.publish()
    world.upsert("core@1/item", KEYS, VECTORS)
    readers = world.platform.readers
    readers.close()  # a thread that waits for its next round would still make that one
    monkeypatch.setattr(readers, "_refresh_seconds", 3600.0)
    monkeypatch.setattr(world.platform.directory, "_fresh_seconds", 3600.0)
    world.lookup = lambda path=LOOKUP, **document: world.ok("POST", path, json={"keys": [9], **document})
    assert world.lookup()["found"] == [False]
    return world


def written(world: Any) -> str:
    return str(world.upsert("core@1/item", np.array([9]), VECTORS[:1], shown=False)["token"])


def test_without_a_token_a_reader_may_be_behind_and_with_it_never(still: Any) -> None:
    token = written(still)
    assert still.lookup()["found"] == [False]
    assert still.lookup(after=token)["found"] == [True]
    assert still.lookup(after=token)["found"] == [True], "and again"
    assert still.lookup()["found"] == [True], "what was seen once is not unseen"


@pytest.mark.parametrize("media", [RAW, "application/json"])
def test_the_header_works_with_every_body(still: Any, media: str) -> None:
    token = written(still)
    body = encode_keys_raw(np.array([9])) if media == RAW else json.dumps({"keys": [9]}).encode()
    headers = {AFTER: token, "content-type": media, "accept": RAW}
    answer = still.call("POST", LOOKUP, headers=headers, content=body)
    assert answer.status_code == 200
    assert answer.content[-1] == 1


def test_searches_take_it_too(still: Any) -> None:
    token = written(still)
    document = {"vectors": VECTORS[:1].tolist(), "k": 4}
    before = still.ok("POST", SEARCH, json=document)["hits"][0]
    after = still.ok("POST", SEARCH, json={**document, "after": token})["hits"][0]
    assert 9 not in [hit["key"] for hit in before]
    assert 9 in [hit["key"] for hit in after]


def test_a_delete_is_seen_as_well(still: Any) -> None:
    token = written(still)
    assert still.lookup(after=token)["found"] == [True]
    gone = still.ok("POST", "/v1/spaces/core@1/item/delete", "core-team", json={"keys": [9]})
    assert still.lookup(after=gone["token"])["found"] == [False]


def test_an_alias_that_moved_just_before_the_write_is_followed(still: Any) -> None:
    second = still.publish(seed=1)
    still.move("production", 1)
    by_alias = "/v1/spaces/core@production/item/lookup"
    assert still.lookup(by_alias)["reference"] == "core@1/item"
    # By another process: this one's directory is not told.
    forget = still.platform.directory.forget
    still.platform.directory.forget = lambda: None
    still.move("production", second, expected=1)
    answer = still.upsert("core@production/item", np.array([9]), VECTORS[:1], shown=False)
    still.platform.directory.forget = forget
    assert answer["reference"] == f"core@{second}/item"
    seen = still.lookup(by_alias, after=answer["token"])
    assert (seen["reference"], seen["found"]) == (f"core@{second}/item", [True])


def test_a_token_of_another_version_is_refused(still: Any) -> None:
    token = written(still)
    second = still.publish(seed=1)
    still.upsert(f"core@{second}/item", KEYS, VECTORS)
    still.move("production", second)
    path = "/v1/spaces/core@production/item/lookup"
    problem = still.problem("POST", path, json={"keys": [9], "after": token})
    assert (problem["status"], problem["code"]) == (409, "write_token_mismatch")
    assert problem["written"] == "core@1/item"
    assert problem["asked"] == f"core@{second}/item"


@pytest.mark.parametrize(
    "after", ["nonsense", "core@1/item:0", "core@production/item:1", 7, ["core@1/item:1"]]
)
def test_what_is_no_token_is_refused(still: Any, after: Any) -> None:
    problem = still.problem("POST", LOOKUP, json={"keys": [9], "after": after})
    assert (problem["status"], problem["code"]) == (422, "invalid_request")


def test_the_token_of_a_write_that_never_was_is_refused_after_one_look(
    still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    refresh_now = still.platform.readers.refresh_now
    monkeypatch.setattr(
        still.platform.readers, "refresh_now", lambda *space: (looked.append(space), refresh_now(*space))[1]
    )
    problem = still.problem("POST", LOOKUP, json={"keys": [9], "after": "core@1/item:99"})
    assert (problem["status"], problem["code"]) == (409, "write_token_mismatch")
    assert problem["sequence"] == 1
    assert len(looked) == 1


def test_arrow_bodies_are_not_searched_for_a_token(still: Any) -> None:
    problem = still.problem("POST", LOOKUP, content=b'{"after": 7}', headers={"content-type": ARROW})
    assert "Arrow" in problem["detail"]
