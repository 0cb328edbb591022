"""The same rows give the same bytes, whatever slices and chunks they come in."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import ObjectDamaged
from bedplate_store.arrow_files import arrow_bytes, read_arrow
from bedplate_store.objects import MemoryObjectStore


def table(rows: int) -> pa.Table:
    words = ["w" * (row % 5) for row in range(rows)]
    lists = [words[: row % 4] for row in range(rows)]
    vectors = pa.array(np.arange(3 * rows).astype(np.float16))
    return pa.table(
        {
            "index": pa.array(range(rows), pa.int64()),
            "word": pa.array(words, pa.string()),
            "maybe_word": pa.array([word or None for word in words], pa.string()),
            "number": pa.array([row / 7 if row % 3 else None for row in range(rows)], pa.float32()),
            "position": pa.array(range(rows), pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, 3),
            "words": pa.array(lists, pa.list_(pa.string())),
            "ages": pa.array([[1] * (row % 3) for row in range(rows)], pa.list_(pa.int64())),
            "time": pa.array(range(rows), pa.timestamp("us", tz="UTC")),
        }
    )


@given(st.integers(0, 40), st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 40), max_size=4))
def test_bytes_follow_from_the_rows_alone(rows: int, before: int, after: int, cuts: list[int]) -> None:
    whole = table(rows)
    wide = pa.concat_tables([table(before), whole, table(after)]).combine_chunks()
    edges = [0, *sorted(cut for cut in cuts if cut < rows), rows]
    slices = [wide[before + first : before + last] for first, last in pairwise(edges)]
    expected = bytes(arrow_bytes(whole))
    assert bytes(arrow_bytes(pa.concat_tables(slices))) == expected
    assert bytes(arrow_bytes(wide.take(pa.array(range(before, before + rows), pa.int64())))) == expected
    assert pa.ipc.open_file(expected).read_all().equals(whole)


def test_damage_is_found() -> None:
    objects = MemoryObjectStore()
    data = bytes(arrow_bytes(table(3)))
    digest = sha256(data).hexdigest()
    objects.put("a", data)
    assert read_arrow(objects, "a", digest).equals(table(3))
    objects.put("a", data[:-1] + b"?")
    with pytest.raises(ObjectDamaged, match="object 'a' is damaged"):
        read_arrow(objects, "a", digest)
