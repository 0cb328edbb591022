"""An index made in parts is the index made in one go, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bedplate.wire.registry import Dtype, Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store import base_indexes
from bedplate_store.base_indexes import IndexFile, add_part, index_base, part_rows, train_index
from bedplate_store.index_stages import index_stages
from bedplate_store.indexes import index_key, open_index
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import open_segment, write_segment
from bedplate_store.snapshot_bases import Base
from bedplate_store.spaces import SpaceKey

LISTS = IndexSpecification(kind="ivf", recall_target=0.9)
ROWS, DIM = 2_100, 16

Make = Callable[..., Base]


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def make(objects: MemoryObjectStore) -> Make:
    def base(rows: int = ROWS, metric: Metric = "l2", dtype: Dtype = "float32") -> Base:
        vectors = np.random.default_rng(5).standard_normal((rows, DIM), np.float32)
        segment = write_segment(
            objects, keys=np.arange(rows) * 7, vectors=vectors, dtype=dtype, key_type="int64"
        )
        return Base(SpaceKey("core", 1, "item"), segment, metric, 0, None)

    return base


@pytest.mark.parametrize(
    ("parts", "metric", "dtype"), [(5, "l2", "float16"), (40, "inner_product", "float32")]
)
def test_parts_added_anywhere_and_in_any_order_make_the_same_index(
    objects: MemoryObjectStore, make: Make, tmp_path: Path, parts: int, metric: Metric, dtype: Dtype
) -> None:
    base = make(metric=metric, dtype=dtype)
    whole = index_base(objects, tmp_path / "one", base, LISTS)
    trained = train_index(objects, tmp_path / "trainer", base, LISTS)
    assert trained is not None
    made: dict[int, IndexFile] = {}
    order = list(range(parts))
    random.Random(1).shuffle(order)
    for part in order:
        machine = tmp_path / f"machine{part % 3}"  # each has a cache of its own
        made[part] = add_part(objects, machine, base, trained, *part_rows(ROWS, part, parts))
    in_order = [made[part] for part in range(parts)]
    assert index_base(objects, tmp_path / "last", base, LISTS, in_order) == whole
    assert whole.kind == "ivf"
    assert not list(tmp_path.glob("*/building/*"))


def test_an_index_of_parts_finds_every_row(objects: MemoryObjectStore, make: Make, tmp_path: Path) -> None:
    base = make()
    trained = train_index(objects, tmp_path, base, LISTS)
    assert trained is not None
    parts = [add_part(objects, tmp_path, base, trained, *part_rows(ROWS, part, 3)) for part in range(3)]
    document = index_base(objects, tmp_path, base, LISTS, parts)
    segment = open_segment(objects, base.segment.digest, tmp_path)
    path = tmp_path / "index.faiss"
    objects.get_file(index_key(document.digest), path)
    index = open_index([path], document, segment, base.metric)
    _, rows = index.search(segment.vectors[:].astype(np.float32), 1, ef=document.parameters["lists"])
    assert rows[:, 0].tolist() == list(range(ROWS))


def test_adding_tells_its_progress_and_can_be_stopped(
    objects: MemoryObjectStore, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedplate_store.indexes.building._CHUNK_ROWS", 100)
    base = make()
    trained = train_index(objects, tmp_path, base, LISTS)
    assert trained is not None
    told: list[int] = []
    add_part(objects, tmp_path, base, trained, 1_000, 1_250, progress=told.append)
    assert told == [100, 200, 250]
    before = set(objects.list(""))

    def stop(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        add_part(objects, tmp_path, base, trained, 0, 500, progress=stop)
    assert set(objects.list("")) == before
    assert not list(tmp_path.glob("building/*"))


def test_a_base_too_small_for_lists_trains_nothing(
    objects: MemoryObjectStore, make: Make, tmp_path: Path
) -> None:
    base = make(rows=200)
    assert train_index(objects, tmp_path, base, LISTS) is None
    assert index_base(objects, tmp_path, base, LISTS, []).kind == "flat"


@pytest.mark.parametrize(
    ("kind", "rows", "parts", "stages"),
    [
        ("auto", 50_000, None, {"merge": 1, "assemble": 1}),
        ("flat", 10_000_000, 8, {"merge": 1, "assemble": 1}),
        ("hnsw", 200_000, None, {"merge": 1, "assemble": 1}),
        ("ivf", 200_000, None, {"merge": 1, "train": 1, "add": 1, "assemble": 1}),
        ("auto", 1_000_000, None, {"merge": 1, "train": 1, "add": 4, "assemble": 1}),
        ("auto", 100_000, 7, {"merge": 1, "train": 1, "add": 7, "assemble": 1}),
        ("auto", 10**10, None, {"merge": 1, "train": 1, "add": base_indexes.PARTS_MAX, "assemble": 1}),
    ],
)
def test_only_lists_over_many_rows_are_trained_and_added_in_parts(
    kind: str, rows: int, parts: int | None, stages: dict[str, int]
) -> None:
    planned = index_stages(IndexSpecification.model_validate({"kind": kind}), rows, parts)
    assert {stage.name: len(stage.partitions) for stage in planned} == stages
    assert {sum(partition.units for partition in stage.partitions) for stage in planned} == {rows}


@pytest.mark.parametrize(("rows", "parts"), [(10, 3), (3, 10), (0, 2), (1_000_003, 4)])
def test_parts_cover_every_row_once(rows: int, parts: int) -> None:
    spans = [part_rows(rows, part, parts) for part in range(parts)]
    assert (spans[0][0], spans[-1][1]) == (0, rows)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
