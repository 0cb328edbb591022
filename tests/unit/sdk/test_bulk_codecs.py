"""The order of a space's rows, and the stream they travel in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.codecs import SCAN_COLUMNS, ScanDecoder, ScanInfo, encode_scan, scan_length, scan_schema
from bedplate.codecs.scans import scan_batch_to_arrow
from bedplate.errors import InternalError, InvalidRequest
from bedplate.space_rows import RowOrder

INFO = ScanInfo("core@7/item", 2, 14, 30, 0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_pieces_are_the_live_rows_in_order(data: Any) -> None:
    base = data.draw(st.integers(0, 40))
    dead = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, base - 1)), max_size=base))), np.int64)
    newer, step = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 15))
    order = RowOrder(base, dead, newer)
    expected = [(False, row) for row in range(base) if row not in set(dead.tolist())]
    expected += [(True, row) for row in range(newer)]
    first = data.draw(st.integers(0, len(expected)))
    last = data.draw(st.integers(first, len(expected)))
    pieces = list(order.pieces(range(first, last), step))
    assert len(order) == len(expected)
    assert [(each.newer, row) for each in pieces for row in each.rows.tolist()] == expected[first:last]
    assert all(0 < len(each) <= step for each in pieces)


@given(st.integers(0, 1000), st.integers(1, 50))
def test_shards_are_all_rows_once(rows: int, count: int) -> None:
    order = RowOrder(rows, np.empty(0, np.int64), 0)
    shards = [order.shard(number, count) for number in range(count)]
    assert [row for shard in shards for row in shard] == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("number", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_shards_that_do_not_exist(number: int, count: int) -> None:
    with pytest.raises(InvalidRequest):
        RowOrder(5, np.empty(0, np.int64), 0).shard(number, count)


def stream(key_type: str, dtype: str, sizes: list[int], columns: Any = SCAN_COLUMNS) -> tuple[bytes, int]:
    """A stream of batches of these sizes, dimension 3, and its length as computed beforehand."""
    schema = scan_schema(INFO, key_type, 3, dtype, columns)
    batches, lengths = [], []
    for first, rows in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        numbers = range(int(first), int(first) + rows)
        keys = pa.array(numbers, pa.int64()) if key_type == "int64" else pa.array([f"k{n}" for n in numbers])
        flat = pa.array(np.repeat(np.array(numbers), 3).astype(dtype))
        found = {"key": keys, "vector": pa.FixedSizeListArray.from_arrays(flat, 3)}
        batches.append(pa.RecordBatch.from_arrays([found[name] for name in columns], schema=schema))
        lengths.append((rows, 8 * rows if key_type == "int64" else sum(len(f"k{n}") for n in numbers)))
    content = b"".join(bytes(part) for parts in encode_scan(schema, batches) for part in parts)
    return content, scan_length(schema, lengths)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int64", "string"]),
    st.sampled_from(["float16", "float32"]),
    st.lists(st.integers(1, 40), max_size=4),
    st.sampled_from([SCAN_COLUMNS, ("key",), ("vector",)]),
    st.integers(1, 400),
)
def test_a_stream_is_as_long_as_said_and_decodes_from_any_chunks(
    key_type: str, dtype: str, sizes: list[int], columns: Any, chunk: int
) -> None:
    content, length = stream(key_type, dtype, sizes, columns)
    assert len(content) == length
    decoder = ScanDecoder()
    batches = [
        batch
        for start in range(0, len(content), chunk)
        for batch in decoder.feed(content[start : start + chunk])
    ]
    assert decoder.ended
    assert decoder.info == INFO
    assert [len(batch) for batch in batches] == sizes
    assert [batch.first_row for batch in batches] == [30 + n for n in np.cumsum([0, *sizes])[:-1].tolist()]
    assert pa.ipc.open_stream(content).read_all().num_rows == sum(sizes)
    for batch in batches:
        first = batch.first_row - 30
        if batch.vectors is not None:
            assert batch.vectors[:, 2].tolist() == list(range(first, first + len(batch)))
        if batch.keys is not None:
            expected = [n if key_type == "int64" else f"k{n}" for n in range(first, first + len(batch))]
            assert list(batch.keys) == expected


def test_a_batch_as_arrow_is_what_was_sent() -> None:
    content, _ = stream("string", "float16", [5])
    (batch,) = ScanDecoder().feed(content)
    schema = scan_schema(INFO, "string", 3, "float16", SCAN_COLUMNS)
    assert scan_batch_to_arrow(batch, schema).equals(pa.ipc.open_stream(content).read_next_batch())


def test_a_cut_stream_has_not_ended() -> None:
    content, _ = stream("int64", "float32", [4, 4])
    for length in range(len(content)):
        decoder = ScanDecoder()
        list(decoder.feed(content[:length]))
        assert not decoder.ended


@pytest.mark.parametrize(
    "content", [b"<html>a proxy's page</html>", b"\xff\xff\xff\xff\x10\0\0\0" + bytes(16)]
)
def test_what_is_no_scan_is_refused(content: bytes) -> None:
    with pytest.raises(InternalError):
        list(ScanDecoder().feed(content))


def test_another_arrow_stream_is_refused() -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("key", pa.int64())])):
        pass
    with pytest.raises(InternalError, match="no scan"):
        list(ScanDecoder().feed(sink.getvalue().to_pybytes()))
