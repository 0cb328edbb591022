"""Lookup and search: three encodings of one answer, one version per answer, and bad input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bedplate.codecs import (
    ARROW,
    RAW,
    SearchQueries,
    decode_lookup_arrow,
    decode_lookup_raw,
    decode_search_answer_arrow,
    decode_search_answer_raw,
    encode_keys_arrow,
    encode_keys_raw,
    encode_search_arrow,
    encode_table,
    encode_vectors_raw,
    found_raw,
)

from .conftest import World

KEYS = np.array([10, 20, 30, 40], np.int64)
VECTORS = np.eye(4, dtype=np.float32)
LOOKUP, SEARCH = "/v1/spaces/core@1/item/lookup", "/v1/spaces/core@1/item/search"
ASKED = np.array([30, 99, 10], np.int64)
FOUND = [True, False, True]
EXPECTED = np.stack([VECTORS[2], np.zeros(4, np.float32), VECTORS[0]])


@pytest.fixture
def filled(world: World) -> World:
    world.publish()
    world.upsert("core@1/item", KEYS, VECTORS)
    return world


@pytest.fixture(scope="module")
def unchanged(shared_world: World) -> World:
    """The same, for tests that only read."""
    shared_world.publish()
    shared_world.upsert("core@1/item", KEYS, VECTORS)
    return shared_world


def _lookup(world: World, body: bytes, media: str, accept: str, path: str = LOOKUP) -> Any:
    return world.call("POST", path, content=body, headers={"content-type": media, "accept": accept})


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (encode_keys_raw(ASKED), RAW),
        (encode_keys_arrow(ASKED), ARROW),
        (json.dumps({"keys": ASKED.tolist()}).encode(), "application/json; charset=utf-8"),
    ],
)
def test_all_encodings_say_the_same(unchanged: World, body: bytes, media: str) -> None:
    document = _lookup(unchanged, body, media, "application/json").json()
    assert document["reference"] == "core@1/item"
    assert document["found"] == FOUND
    assert document["vectors"] == EXPECTED.tolist()

    arrow = decode_lookup_arrow(_lookup(unchanged, body, media, ARROW).content)
    assert arrow.version == "core@1"
    assert arrow.found.tolist() == FOUND
    np.testing.assert_array_equal(arrow.vectors, EXPECTED)

    raw = _lookup(unchanged, body, media, RAW)
    headers = {
        name: raw.headers[f"x-bedplate-{name}"] for name in ("version", "snapshot", "dim", "dtype", "rows")
    }
    assert headers == {"version": "core@1", "snapshot": "0", "dim": "4", "dtype": "float32", "rows": "3"}
    found, vectors = decode_lookup_raw(raw.content, rows=3, dim=4, dtype="float32")
    assert found.tolist() == FOUND
    np.testing.assert_array_equal(vectors, EXPECTED)


def test_a_raw_answer_in_the_dtype_asked_for(unchanged: World) -> None:
    raw = _lookup(unchanged, encode_keys_raw(ASKED), RAW, f"{RAW};dtype=float16")
    assert raw.headers["x-bedplate-dtype"] == "float16"
    _, vectors = decode_lookup_raw(raw.content, rows=3, dim=4, dtype="float16")
    np.testing.assert_array_equal(vectors, EXPECTED.astype(np.float16))
    bad = unchanged.problem("POST", LOOKUP, json={"keys": [1]}, headers={"accept": f"{RAW};dtype=int8"})
    assert bad["status"] == 406


def test_string_keys(filled: World) -> None:
    filled.upsert("core@1/user", ["u1", "ü2"], np.ones((2, 4), np.float16))
    body = encode_keys_arrow(["ü2", "u3"])
    raw = _lookup(filled, body, ARROW, RAW, "/v1/spaces/core@1/user/lookup")
    assert raw.headers["x-bedplate-dtype"] == "float16"
    found, _ = decode_lookup_raw(raw.content, rows=2, dim=4, dtype="float16")
    assert found.tolist() == [True, False]


def test_an_alias_is_followed_at_once(filled: World) -> None:
    second = filled.publish(1)
    filled.upsert(f"core@{second}/item", KEYS[:1], -VECTORS[:1])
    path = "/v1/spaces/core@production/item/lookup"
    assert filled.problem("POST", path, json={"keys": [10]})["code"] == "not_found"
    filled.move("production", 1)
    assert filled.ok("POST", path, json={"keys": [10]})["vectors"] == [VECTORS[0].tolist()]
    filled.move("production", second, expected=1)
    response = filled.call("POST", path, json={"keys": [10]})
    assert response.headers["x-bedplate-version"] == f"core@{second}"
    assert response.json()["vectors"] == (-VECTORS[:1]).tolist()


def test_search_in_all_encodings(unchanged: World) -> None:
    queries = np.array([[3, 2, 1, 0]], np.float32)
    document = unchanged.ok("POST", SEARCH, json={"vectors": queries.tolist(), "k": 2})
    assert document["hits"] == [[{"key": 10, "score": 3.0}, {"key": 20, "score": 2.0}]]
    for body, media in (
        (encode_vectors_raw(queries), RAW),
        (encode_search_arrow(SearchQueries(queries)), ARROW),
    ):
        headers = {"content-type": media, "accept": ARROW}
        answer = unchanged.call("POST", f"{SEARCH}?k=2", content=body, headers=headers)
        found = decode_search_answer_arrow(answer.content)
        assert np.asarray(found.keys).tolist() == [[10, 20]]
        raw = unchanged.call("POST", f"{SEARCH}?k=6", content=body, headers={**headers, "accept": RAW})
        keys, scores = decode_search_answer_raw(raw.content, queries=1, k=6)
        assert keys.tolist() == [[10, 20, 30, 40, -1, -1]]
        assert scores[0, 4:].tolist() == [-np.inf, -np.inf]


def test_search_by_key_leaves_the_key_out(unchanged: World) -> None:
    document = unchanged.ok("POST", SEARCH, json={"keys": [10, 77], "k": 3})
    assert document["found"] == [True, False]
    assert 10 not in {hit["key"] for hit in document["hits"][0]}
    assert len(document["hits"][0]) == 3
    assert document["hits"][1] == []
    for body, media in (
        (encode_keys_raw(np.array([10, 77])), RAW),
        (encode_search_arrow(SearchQueries(keys=np.array([10, 77]))), ARROW),
    ):
        headers = {"content-type": media, "accept": RAW}
        raw = unchanged.call("POST", f"{SEARCH}?k=3&by=key", content=body, headers=headers).content
        keys, scores = decode_search_answer_raw(raw, queries=2, k=3, by_key=True)
        assert keys.tolist() == [[hit["key"] for hit in document["hits"][0]], [-1, -1, -1]]
        assert scores[0].tolist() == [hit["score"] for hit in document["hits"][0]]
        assert found_raw(raw, rows=2).tolist() == [True, False]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/spaces/nope@1/item", 404, "not_found"),
        ("/v1/spaces/core@9/item", 404, "not_found"),
        ("/v1/spaces/core@nope/item", 404, "not_found"),
        ("/v1/spaces/core@1/nope", 404, "not_found"),
        ("/v1/spaces/core@1/user", 409, "space_not_ready"),
        ("/v1/spaces/core/item", 422, "invalid_request"),
        ("/v1/spaces/CORE@1/item", 422, "invalid_request"),
    ],
)
def test_unknown_spaces(unchanged: World, path: str, status: int, code: str) -> None:
    for verb, document in (("lookup", {"keys": [1]}), ("search", {"keys": [1]})):
        problem = unchanged.problem("POST", f"{path}/{verb}", json=document)
        assert (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (b'{"keys": [1', "application/json", 422, "invalid_request"),
        (b'{"keys": []}', "application/json", 422, "empty_batch"),
        (b'{"keys": [1], "x": 1}', "application/json", 422, "invalid_request"),
        (b'{"keys": ["a"]}', "application/json", 422, "key_type_mismatch"),
        (b'{"keys": [1, "a"]}', "application/json", 422, "key_type_mismatch"),
        (b'{"keys": [99999999999999999999]}', "application/json", 422, "key_type_mismatch"),
        (json.dumps({"keys": [1] * 10_001}).encode(), "application/json", 413, "batch_too_large"),
        (b"1234567", RAW, 422, "invalid_request"),
        (b"", RAW, 422, "empty_batch"),
        (bytes(8 * 100_001), RAW, 413, "batch_too_large"),
        (b"no arrow", ARROW, 422, "invalid_request"),
        (encode_keys_arrow(["a"]), ARROW, 422, "key_type_mismatch"),
        (b"<keys/>", "application/xml", 415, "unsupported_media_type"),
    ],
)
def test_bad_lookups(unchanged: World, body: bytes, media: str, status: int, code: str) -> None:
    problem = unchanged.problem("POST", LOOKUP, content=body, headers={"content-type": media})
    assert (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "invalid_request"),
        ({"keys": [1], "vectors": [[1, 2, 3, 4]]}, "invalid_request"),
        ({"keys": []}, "empty_batch"),
        ({"vectors": []}, "empty_batch"),
        ({"vectors": [[1, 2, 3]]}, "dimension_mismatch"),
        ({"vectors": [[1, 2, 3, 4], [1]]}, "dimension_mismatch"),
        ({"vectors": [[1, 2, 3, 1e400]]}, "non_finite_vectors"),
        ({"vectors": [[1, 2, 3, 1e39]]}, "non_finite_vectors"),
        ({"vectors": [["a"]]}, "invalid_request"),
        ({"keys": ["a"]}, "key_type_mismatch"),
        ({"keys": [1], "k": 0}, "invalid_request"),
        ({"keys": [1], "k": 1001}, "invalid_request"),
    ],
)
def test_bad_searches(unchanged: World, document: dict[str, Any], code: str) -> None:
    body = json.dumps(document).replace("Infinity", "1e400").encode()
    problem = unchanged.problem("POST", SEARCH, content=body, headers={"content-type": "application/json"})
    assert problem["code"] == code


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        (encode_vectors_raw(np.full((1, 4), np.nan)), "", "non_finite_vectors"),
        (b"123", "", "dimension_mismatch"),
        (encode_vectors_raw(np.ones((1, 8))), "?dim=8", "dimension_mismatch"),
        (encode_vectors_raw(np.ones((1, 4))), "?dim=four", "dimension_mismatch"),
        (b"", "", "empty_batch"),
        (encode_vectors_raw(np.ones((1, 4))), "?k=zero", "invalid_request"),
        (encode_vectors_raw(np.ones((1, 4))), "?k=1001", "invalid_request"),
        (encode_vectors_raw(np.ones((1, 4))), "?ef=0", "invalid_request"),
        (bytes(16 * 10_001), "", "batch_too_large"),
        (bytes(16 * 1_001), "?k=1000", "batch_too_large"),
    ],
)
def test_bad_raw_searches(unchanged: World, body: bytes, query: str, code: str) -> None:
    headers = {"content-type": RAW}
    assert unchanged.problem("POST", f"{SEARCH}{query}", content=body, headers=headers)["code"] == code


def test_an_arrow_search_needs_one_column(unchanged: World) -> None:
    import pyarrow as pa

    body = encode_table(pa.table({"other": [1]}))
    problem = unchanged.problem("POST", SEARCH, content=body, headers={"content-type": ARROW})
    assert problem["code"] == "invalid_request"


def test_what_cannot_be_answered(filled: World) -> None:
    headers = {"accept": "text/html"}
    assert filled.problem("POST", LOOKUP, json={"keys": [1]}, headers=headers)["status"] == 406
    filled.upsert("core@1/user", ["u"], np.ones((1, 4), np.float16))
    path, headers = "/v1/spaces/core@1/user/search", {"accept": RAW}
    assert filled.problem("POST", path, json={"keys": ["u"]}, headers=headers)["status"] == 406
    either = {"accept": f"{RAW}, {ARROW};q=0.9", "content-type": RAW}
    hits = filled.call("POST", f"{path}?dim=4", content=encode_vectors_raw(np.ones((1, 4))), headers=either)
    assert (hits.status_code, hits.headers["content-type"]) == (200, ARROW), (
        "string keys do not fit raw bytes"
    )
