"""What a space's storages cost, as the API, the SDK and the CLI tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bedplate.wire.registry import EvaluationCreate, SpaceRead
from bedplate_store import snapshots
from bedplate_store.compression import keep_sample
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey

from .conftest import World, checkpoint_files, signature
from .test_bulk_reads import Wire

DIM, ROWS = 64, 300


def publish(world: World, dtype: str) -> str:
    """A version whose item space is stored as ``dtype``; all of them have the same weights."""
    announced = signature(
        {
            "item": {"dim": DIM, "dtype": dtype, "entity": "item", "key_type": "int64"},
            "tae": {"dim": DIM, "dtype": "float16"},
        }
    )
    files = checkpoint_files(announced=announced)
    version = world.draft(files, signature=announced)
    world.upload(version, files)
    world.ok("POST", f"/v1/foundations/core/versions/{version}/finalise", "core-team")
    return f"core@{version}"


def embed(world: World, reference: str) -> None:
    """What an embed job of one partition ends with."""
    house, key = world.platform, SpaceKey.parse(f"{reference}/item")
    space = world.ok("GET", f"/v1/spaces/{key}")
    keys = np.arange(ROWS)
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    info = write_segment(house.objects, keys=keys, vectors=vectors, dtype=space["dtype"], key_type="int64")
    sample = keep_sample(house.objects, keys, vectors, info, ROWS)
    prepared = snapshots.prepare(
        house.store,
        house.objects,
        house.settings.cache_dir,
        key,
        [info.digest],
        None,
        samples=[] if sample is None else [sample],
    )
    with house.store.write() as session:
        snapshots.publish(session, prepared, objects=house.objects, job=None, now=world.clock())


def record(world: World, ne: float, reads: list[dict[str, Any]], **members: Any) -> None:
    document = {
        "subject": "core@1",
        "surface": "feed",
        "window_start": "2026-02-01T00:00:00Z",
        "window_end": "2026-03-01T00:00:00Z",
        "rows": 10,
        "metrics": {"ne": ne},
        "reads": reads,
    }
    world.ok("POST", "/v1/evaluations", "feed-team", json=document | members)


def costs(world: World, space: str) -> dict[str, dict[str, Any]]:
    answer = world.ok("GET", f"/v1/spaces/{space}/storage-costs", "feed-team")
    return {one["dtype"]: one for one in answer["items"]}


def test_bytes_error_recall_and_ne_stand_side_by_side(world: World) -> None:
    half, byte = publish(world, "float16"), publish(world, "int8")
    for reference in (half, byte):
        embed(world, reference)
    for seed, (before, after) in enumerate([(0.80, 0.81), (0.82, 0.85)]):
        record(world, before, [{"space": f"{half}/item", "snapshot": 1}], seed=seed)
        record(world, after, [{"space": f"{byte}/item", "snapshot": 1}], seed=seed)
    found = costs(world, f"{half}/item")
    assert list(found) == ["float32", "float16", "int8", "int4"]
    assert [one["row_bytes"] for one in found.values()] == [256, 128, 66, 36]
    assert (found["float16"]["space"], found["int8"]["space"]) == (f"{half}/item", f"{byte}/item")
    assert found["int8"]["bytes"] < found["float16"]["bytes"]
    assert found["int8"]["rows"] == ROWS
    assert 0.003 < found["int8"]["compression"]["relative_error_mean"] < 0.012
    assert 0.9 < found["int8"]["compression"]["recall_at_10"] <= 1
    (ne,) = found["int8"]["ne"]
    assert (ne["against"], ne["seeds"], ne["expert"]) == ("float16", 2, "core")
    assert ne["cost"] == pytest.approx(0.02)
    assert found["int8"]["unmeasured"] == []
    same = costs(world, f"{byte}/item")
    assert [same[dtype] for dtype in ("float16", "int8")] == [found["float16"], found["int8"]]


def test_what_is_not_measured_is_said_with_what_would_measure_it(world: World) -> None:
    half = publish(world, "float16")
    found = costs(world, f"{half}/item")
    assert found["float32"]["unmeasured"] == []
    (no_ne,) = found["float16"]["unmeasured"]
    assert "no expert was evaluated on float16 and on float32" in no_ne
    assert f"{half}/item" in no_ne
    no_error, no_ne = found["int4"]["unmeasured"]
    assert "publish the same weights with storage_dtype int4" in no_error
    assert "on int4 and on float32 or float16" in no_ne
    assert (found["int4"]["space"], found["int4"]["snapshot"], found["int4"]["ne"]) == (None, None, [])
    nibble = publish(world, "int4")
    no_error, _ = costs(world, f"{half}/item")["int4"]["unmeasured"]
    assert f"bedplate spaces embed {nibble}/item" in no_error
    (no_error, _) = costs(world, f"{half}/tae")["int8"]["unmeasured"]
    assert "no job embeds" in no_error


def test_a_storage_is_tried_without_publishing_it(world: World) -> None:
    half = publish(world, "float16")
    record(world, 0.80, [{"space": f"{half}/item", "storage": "float32"}])
    record(world, 0.83, [{"space": f"{half}/item", "storage": "int4"}])
    found = costs(world, f"{half}/item")
    assert found["int4"]["ne"][0]["cost"] == pytest.approx(0.03)
    assert found["float16"]["ne"] == []


def test_a_space_that_is_not_there_has_no_costs(world: World) -> None:
    half = publish(world, "float16")
    assert world.problem("GET", f"/v1/spaces/{half}/nothing/storage-costs")["status"] == 404
    assert world.problem("GET", "/v1/spaces/core@9/item/storage-costs")["status"] == 404


def test_the_sdk_records_what_was_read_and_shows_what_it_cost(world: World) -> None:
    half = publish(world, "float16")
    client = Wire(world).client()
    space = f"{half}/item"
    first = client.evaluations.list()
    assert list(first) == []
    for storage, ne in (("float16", 0.80), ("int8", 0.81)):
        client.evaluations.record(
            EvaluationCreate.model_validate(
                {
                    "subject": half,
                    "surface": "feed",
                    "window_start": "2026-02-01T00:00:00Z",
                    "window_end": "2026-03-01T00:00:00Z",
                    "rows": 10,
                    "metrics": {"ne": ne},
                    "reads": [SpaceRead(space=space, storage=storage)],
                }
            )
        )
    by_dtype = {one.dtype: one for one in client.spaces.storage_costs(space)}
    assert by_dtype["int8"].ne[0].cost == pytest.approx(0.01)
    assert by_dtype["float16"].snapshot is None
