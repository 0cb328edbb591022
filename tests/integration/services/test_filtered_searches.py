"""Attributes and filters over REST: written as JSON and Arrow, searched by JSON body and by ``?filter=``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from bedplate.codecs import ARROW, RAW, encode_upsert_arrow, encode_vectors_raw

from .conftest import World

SPACE = "/v1/spaces/core@1/item"
FILTER = {"all": [{"attribute": "year", "at_least": 1990}, {"attribute": "genres", "any_of": ["Action"]}]}


@pytest.fixture(scope="module")
def films(shared_world: World) -> World:
    shared_world.publish()
    vectors = [[4, 0, 0, 0], [3, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]
    shared_world.ok(
        "POST",
        f"{SPACE}/upsert",
        json={
            "keys": [1, 2],
            "vectors": vectors[:2],
            "attributes": {"year": [1989, 1995], "genres": [["Action"], ["Action", "Drama"]]},
        },
    )
    body = encode_upsert_arrow(
        np.array([3, 4]),
        np.array(vectors[2:], np.float32),
        {"year": [2001, None], "genres": [["Action"], ["Action"]]},
    )
    shared_world.ok("POST", f"{SPACE}/upsert", content=body, headers={"content-type": ARROW})
    return shared_world


def _keys(answer: Any) -> list[int]:
    return [hit["key"] for hit in answer["hits"][0]]


def test_a_document_carries_its_filter(films: World) -> None:
    asked = {"vectors": [[1, 0, 0, 0]], "filter": FILTER}
    assert _keys(films.ok("POST", f"{SPACE}/search", json=asked)) == [2, 3]
    assert _keys(films.ok("POST", f"{SPACE}/search", json={"keys": [2], "filter": FILTER})) == [3]
    assert _keys(films.ok("POST", f"{SPACE}/search", json={**asked, "recall": 0.99, "k": 1})) == [2]


def test_bulk_bodies_have_it_in_the_query(films: World) -> None:
    body = encode_vectors_raw(np.array([[1, 0, 0, 0]], np.float32))
    path = f"{SPACE}/search?filter={quote(json.dumps(FILTER))}"
    answer = films.ok("POST", path, content=body, headers={"content-type": RAW, "accept": "application/json"})
    assert _keys(answer) == [2, 3]


@pytest.mark.parametrize(
    ("filter", "says"),
    [
        ({"attribute": "yaer", "equals": 1}, "it has: genres (list<string>), year (int64)"),
        ({"attribute": "year", "equals": "x"}, "'x' cannot be compared"),
        ({"attribute": "year"}, "at least one of equals"),
    ],
)
def test_a_filter_that_does_not_fit_is_told(films: World, filter: Any, says: str) -> None:
    asked = {"vectors": [[1, 0, 0, 0]], "filter": filter}
    problem = films.problem("POST", f"{SPACE}/search", json=asked)
    assert problem["status"] == 422
    assert says in json.dumps(problem)
    path = f"{SPACE}/search?filter={quote(json.dumps(filter))}"
    body = encode_vectors_raw(np.array([[1, 0, 0, 0]], np.float32))
    problem = films.problem("POST", path, content=body, headers={"content-type": RAW})
    assert problem["status"] == 422
    assert says in json.dumps(problem)


def test_another_type_is_a_conflict_and_the_space_names_its_attributes(films: World) -> None:
    body = {"keys": [9], "vectors": [[1, 0, 0, 0]], "attributes": {"year": ["1990"]}}
    problem = films.problem("POST", f"{SPACE}/upsert", json=body)
    assert (problem["status"], problem["code"]) == (409, "conflict")
    assert films.ok("GET", SPACE)["attributes"] == {"genres": "list<string>", "year": "int64"}
    assert not films.ok("POST", f"{SPACE}/lookup", json={"keys": [9]})["found"][0]


def test_a_recall_out_of_range_is_refused(films: World) -> None:
    body = encode_vectors_raw(np.array([[1, 0, 0, 0]], np.float32))
    for recall in ("0", "1.5", "x", "nan"):
        path = f"{SPACE}/search?recall={recall}"
        problem = films.problem("POST", path, content=body, headers={"content-type": RAW})
        assert (problem["status"], problem["code"]) == (422, "invalid_request")
