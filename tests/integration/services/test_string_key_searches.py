"""Searches in a space whose keys are strings: by key and by vector, in JSON and in Arrow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bedplate.codecs import ARROW, SearchQueries, decode_search_answer_arrow, encode_search_arrow

from .conftest import World


def _ask(world: World, body: bytes, media: str, accept: str, path: str) -> Any:
    return world.call("POST", path, content=body, headers={"content-type": media, "accept": accept})


WORDS = ["über", "Heat (1995)", "a/b", "e"]


@pytest.fixture(scope="module")
def worded(shared_world: World) -> World:
    """core@1/user, whose keys are strings: ``e`` is far from the others."""
    vectors = np.array([[4, 0, 0, 0], [3, 1, 0, 0], [2, 1, 0, 0], [0, 0, 0, 1]], np.float16)
    shared_world.publish()
    shared_world.upsert("core@1/item", np.array([1], np.int64), np.ones((1, 4), np.float32))
    shared_world.upsert("core@1/user", WORDS, vectors)
    return shared_world


BY_KEY = [
    (json.dumps({"keys": ["über", "nobody"], "k": 2}).encode(), "application/json", ""),
    (encode_search_arrow(SearchQueries(keys=["über", "nobody"])), ARROW, "?k=2"),
]


@pytest.mark.parametrize(("body", "media", "query"), BY_KEY, ids=["json", "arrow"])
def test_search_by_string_key(worded: World, body: bytes, media: str, query: str) -> None:
    path = f"/v1/spaces/core@1/user/search{query}"
    document = _ask(worded, body, media, "application/json", path).json()
    assert document["reference"] == "core@1/user"
    assert document["found"] == [True, False]
    near = [{"key": "Heat (1995)", "score": 12.0}, {"key": "a/b", "score": 8.0}]
    assert document["hits"] == [near, []]
    answer = _ask(worded, body, media, ARROW, path)
    assert answer.headers["x-bedplate-version"] == "core@1"
    found = decode_search_answer_arrow(answer.content)
    assert found.found.tolist() == [True, False]
    assert list(found.keys[0]) == ["Heat (1995)", "a/b"]
    assert found.scores[0].tolist() == [12.0, 8.0]
    assert found.scores[1].tolist() == [-np.inf, -np.inf]


def test_search_by_vector_among_string_keys(worded: World) -> None:
    path = "/v1/spaces/core@1/user/search"
    document = worded.ok("POST", path, json={"vectors": [[0, 0, 0, 2]], "k": 1})
    assert document["hits"] == [[{"key": "e", "score": 2.0}]]
    body = encode_search_arrow(SearchQueries(np.array([[0, 0, 0, 2]], np.float32)))
    found = decode_search_answer_arrow(_ask(worded, body, ARROW, ARROW, f"{path}?k=1").content)
    assert list(found.keys[0]) == ["e"]


@pytest.mark.parametrize(("space", "keys"), [("user", np.array([1], np.int64)), ("item", ["one"])])
def test_keys_of_the_wrong_type_are_named(worded: World, space: str, keys: Any) -> None:
    body = encode_search_arrow(SearchQueries(keys=keys))
    headers = {"content-type": ARROW}
    problem = worded.problem("POST", f"/v1/spaces/core@1/{space}/search", content=body, headers=headers)
    assert (problem["status"], problem["code"]) == (422, "key_type_mismatch")
