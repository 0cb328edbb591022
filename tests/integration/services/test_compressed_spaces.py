"""int8 and int4 spaces over REST and through the SDK: every way of reading gives the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bedplate.codecs import ARROW, JSON, RAW, decode_lookup_arrow, decode_lookup_raw
from bedplate.stored_vectors import Storage

from .conftest import World, checkpoint_files, signature
from .test_bulk_reads import Wire
from .test_bulk_routes import compact, scan

KEYS = np.arange(50, dtype=np.int64)
DIM = 4
LOOKUP = "/v1/spaces/core@1/item/lookup"


@pytest.fixture(params=["int8", "int4"])
def compressed(world: World, request: pytest.FixtureRequest) -> tuple[World, Any]:
    """core@1/item holds 50 rows, 40 of them in a snapshot; and what they are answered as, in float32."""
    item = {"dim": DIM, "dtype": request.param, "entity": "item", "key_type": "int64"}
    announced = signature({"item": item})
    files = checkpoint_files(announced=announced)
    version = world.draft(files, signature=announced)
    world.upload(version, files)
    world.ok("POST", f"/v1/foundations/core/versions/{version}/finalise", "core-team")
    vectors = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)
    world.upsert("core@1/item", KEYS[:40], vectors[:40])
    compact(world)
    world.upsert("core@1/item", KEYS[40:], vectors[40:])
    storage = Storage(request.param, DIM)
    return world, storage.decode(storage.encode(vectors), "float32")


def look_up(world: World, accept: str, content_type: str = RAW) -> Any:
    headers = {"accept": accept, "content-type": content_type}
    response = world.call("POST", LOOKUP, "feed-team", content=KEYS.tobytes(), headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("accept", [RAW, f"{RAW};dtype=float16", f"{RAW};dtype=float32"])
def test_raw_answers_are_decoded(compressed: tuple[World, Any], accept: str) -> None:
    world, expected = compressed
    response = look_up(world, accept)
    dtype = "float32" if "float32" in accept else "float16"
    assert response.headers["x-bedplate-dtype"] == dtype
    found, vectors = decode_lookup_raw(response.content, rows=50, dim=DIM, dtype=dtype)
    assert found.all()
    assert (vectors == expected.astype(dtype)).all()


def test_other_answers_are_decoded(compressed: tuple[World, Any]) -> None:
    world, expected = compressed
    arrow = decode_lookup_arrow(look_up(world, ARROW).content)
    assert (np.asarray(arrow.vectors) == expected.astype(np.float16)).all()
    document = look_up(world, JSON).json()
    assert (np.array(document["vectors"], np.float32) == expected).all()


def test_int8_is_no_element_type_of_an_answer(compressed: tuple[World, Any]) -> None:
    world, _ = compressed
    headers = {"accept": f"{RAW};dtype=int8", "content-type": RAW}
    problem = world.problem("POST", LOOKUP, "feed-team", content=KEYS.tobytes(), headers=headers)
    assert problem["code"] == "not_acceptable"


def test_scans_and_files_are_decoded(compressed: tuple[World, Any]) -> None:
    world, expected = compressed
    found, headers, _ = scan(world)
    assert headers["x-bedplate-dtype"] == "float16"
    assert all((found[key] == expected[key].astype(np.float16)).all() for key in KEYS.tolist())
    client = Wire(world).client()
    data = client.spaces.read("core@1/item")
    assert data.keys.tolist() == KEYS.tolist()
    assert (data.vectors == expected.astype(np.float16)).all()
    assert data.to_torch().shape == (50, DIM)
    batches = [batch.vectors for batch in data.batches(7)]
    assert (np.concatenate(batches) == data.vectors).all()


def test_the_space_says_how_it_is_stored(compressed: tuple[World, Any]) -> None:
    world, _ = compressed
    space = world.ok("GET", "/v1/spaces/core@1/item", "feed-team")
    assert space["dtype"] in ("int8", "int4")
    client = Wire(world).client()
    found = client.spaces.lookup("core@1/item", KEYS, dtype="float32")
    assert found.vectors.dtype == np.float32
    near = client.spaces.search("core@1/item", vectors=found.vectors[:3], k=1)
    assert near.scores.shape == (3, 1)
