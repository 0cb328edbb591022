from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedplate import codecs
from bedplate.errors import (
    DimensionMismatch,
    EmptyBatch,
    InternalError,
    InvalidRequest,
    KeyTypeMismatch,
    NotAcceptable,
    UnsupportedMediaType,
)

FOUND = np.array([True, False, True])
VECTORS = np.arange(12, dtype=np.float16).reshape(3, 4)


@given(
    arrays(np.int64, st.integers(1, 50)),
)
def test_raw_and_arrow_keys_come_back(keys):
    np.testing.assert_array_equal(codecs.decode_keys_raw(codecs.encode_keys_raw(keys)), keys)
    np.testing.assert_array_equal(codecs.decode_keys_arrow(codecs.encode_keys_arrow(keys)), keys)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_string_keys_come_back(keys):
    encodable = [key.encode("utf-8", "ignore").decode() or "x" for key in keys]
    assert codecs.decode_keys_arrow(codecs.encode_keys_arrow(encodable)) == encodable


def test_raw_keys_are_little_endian():
    assert codecs.encode_keys_raw(np.array([1, -1])) == b"\x01" + b"\0" * 7 + b"\xff" * 8


@pytest.mark.parametrize("body", [b"1234567", b"123456789"])
def test_a_cut_key_is_refused(body):
    with pytest.raises(InvalidRequest, match="8 bytes each"):
        codecs.decode_keys_raw(body)


def test_no_keys_and_no_vectors_are_empty_batches():
    with pytest.raises(EmptyBatch):
        codecs.decode_keys_raw(b"")
    with pytest.raises(EmptyBatch):
        codecs.decode_keys_arrow(codecs.encode_table(pa.table({"key": pa.array([], pa.int64())})))
    with pytest.raises(EmptyBatch):
        codecs.decode_vectors_raw(b"", 4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_raw_lookup_comes_back_bit_equal(dtype):
    vectors = np.array([[0.1, -0.0, np.inf], [1, 2, 3], [0, 0, 0]], dtype=dtype)
    body = codecs.encode_lookup_raw(FOUND, vectors)
    found, back = codecs.decode_lookup_raw(body, rows=3, dim=3, dtype=dtype)
    assert back.tobytes() == vectors.tobytes()
    assert back.dtype == dtype
    np.testing.assert_array_equal(found, FOUND)
    assert len(body) == vectors.nbytes + 3


def test_a_raw_lookup_can_be_widened():
    body = codecs.encode_lookup_raw(FOUND, VECTORS, "float32")
    _, back = codecs.decode_lookup_raw(body, rows=3, dim=4, dtype="float32")
    np.testing.assert_array_equal(back, VECTORS.astype(np.float32))


def test_a_cut_lookup_is_noticed():
    body = codecs.encode_lookup_raw(FOUND, VECTORS)
    with pytest.raises(InternalError, match="cut short"):
        codecs.decode_lookup_raw(body[:-1], rows=3, dim=4, dtype="float16")


@pytest.mark.parametrize("keys", [np.array([5, 6, 7]), ["a", "b", "ä"]])
def test_an_arrow_lookup_comes_back(keys):
    body = codecs.encode_lookup_arrow(keys, FOUND, VECTORS, version="core@7", snapshot=3)
    answer = codecs.decode_lookup_arrow(body)
    assert list(answer.keys) == list(keys)
    assert (answer.version, answer.snapshot) == ("core@7", 3)
    assert answer.vectors.tobytes() == VECTORS.tobytes()
    np.testing.assert_array_equal(answer.found, FOUND)


def test_an_empty_lookup_stays_a_lookup():
    empty = np.zeros((0, 4), dtype=np.float16)
    body = codecs.encode_lookup_arrow([], np.zeros(0, bool), empty, version="core@7", snapshot=0)
    assert codecs.decode_lookup_arrow(body).vectors.shape == (0, 4)


def test_search_hits_come_back_padded():
    scores = np.array([[0.9, 0.5], [0.7, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
    keys = np.array([[4, -7], [5, -1], [-1, -1]])
    found = np.array([True, True, False])
    body = codecs.encode_search_answer_arrow(keys, scores, found, version="core@7", snapshot=3)
    answer = codecs.decode_search_answer_arrow(body)
    np.testing.assert_array_equal(answer.keys, keys)
    np.testing.assert_array_equal(answer.scores, scores)
    np.testing.assert_array_equal(answer.found, found)


@pytest.mark.parametrize("keys", [[["a", "b"], ["c"], []], [["a", "b"], ["c", None], [None, None]]])
def test_string_hits_may_come_padded_or_ragged(keys):
    scores = np.array([[0.9, 0.5], [0.7, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
    body = codecs.encode_search_answer_arrow(keys, scores, np.ones(3, bool), version="core@7", snapshot=3)
    answer = codecs.decode_search_answer_arrow(body)
    assert answer.keys == [["a", "b"], ["c", None], [None, None]]
    np.testing.assert_array_equal(answer.scores, scores)


def test_a_raw_search_answer_comes_back():
    keys, scores = np.array([[1, 2], [3, -1]]), np.array([[1, 0.5], [0.2, -np.inf]], dtype=np.float32)
    body = codecs.encode_search_answer_raw(keys, scores)
    back = codecs.decode_search_answer_raw(body, queries=2, k=2)
    np.testing.assert_array_equal(back[0], keys)
    np.testing.assert_array_equal(back[1], scores)
    with pytest.raises(InternalError):
        codecs.decode_search_answer_raw(body, queries=2, k=3)


def test_a_raw_answer_to_a_search_by_key_tells_which_keys_there_are():
    keys, scores = np.array([[1], [-1], [-1]]), np.array([[1], [-np.inf], [-np.inf]], dtype=np.float32)
    found, answered = np.array([True, False, False]), np.array([True, True, False])
    body = codecs.encode_search_answer_raw(keys, scores, found, answered)
    back = codecs.decode_search_answer_raw(body, queries=3, k=1, by_key=True)
    np.testing.assert_array_equal(back[0], keys)
    np.testing.assert_array_equal(back[1], scores)
    np.testing.assert_array_equal(codecs.found_raw(body, rows=3), found)
    assert body[-3:] == bytes([1, 0, 2])
    with pytest.raises(InternalError):
        codecs.decode_search_answer_raw(body, queries=3, k=1)


def test_a_search_is_by_vectors_or_by_keys():
    vectors = codecs.decode_search_arrow(codecs.encode_search_arrow(codecs.SearchQueries(vectors=VECTORS)))
    np.testing.assert_array_equal(vectors.vectors, VECTORS)
    keys = codecs.decode_search_arrow(codecs.encode_search_arrow(codecs.SearchQueries(keys=["a"])))
    assert keys.keys == ["a"]
    with pytest.raises(InvalidRequest, match="exactly one"):
        codecs.encode_search_arrow(codecs.SearchQueries())
    both = pa.table({"key": ["a", "b", "c"], "vector": codecs.vectors_to_arrow(VECTORS)})
    with pytest.raises(InvalidRequest, match="exactly one"):
        codecs.decode_search_arrow(codecs.encode_table(both))


def test_raw_vectors_of_another_dimension_are_refused():
    with pytest.raises(DimensionMismatch, match="the dimension is 5"):
        codecs.decode_vectors_raw(VECTORS.astype("<f4").tobytes(), 5)


def test_an_upsert_comes_back():
    keys, vectors, _ = codecs.decode_upsert_arrow(codecs.encode_upsert_arrow(["a", "b", "c"], VECTORS))
    assert keys == ["a", "b", "c"]
    assert vectors.dtype == np.float16
    assert vectors.tobytes() == VECTORS.tobytes()
    with pytest.raises(InvalidRequest, match="2 keys came with 3 vectors"):
        codecs.encode_upsert_arrow(["a", "b"], VECTORS)


def _upsert(keys: pa.Array, vectors: pa.Array) -> bytes:
    return codecs.encode_table(pa.table({"key": keys, "vector": vectors}))


def test_sliced_and_chunked_columns_are_read_from_where_they_begin():
    table = pa.table({"key": ["a", "b", "c"], "vector": codecs.vectors_to_arrow(VECTORS)})
    twice = pa.concat_tables([table.slice(1), table.slice(2)])
    keys, vectors, _ = codecs.decode_upsert_arrow(codecs.encode_table(twice))
    assert keys == ["b", "c", "c"]
    np.testing.assert_array_equal(vectors, VECTORS[[1, 2, 2]])


@pytest.mark.parametrize(
    ("keys", "vectors", "error", "match"),
    [
        (pa.array(["a", None]), pa.array([[1.0], [2.0]]), InvalidRequest, "'key', row 1: is null"),
        (pa.array([1.5, 2.5]), pa.array([[1.0], [2.0]]), KeyTypeMismatch, "double"),
        (pa.array([2**63, 1], pa.uint64()), pa.array([[1.0], [2.0]]), KeyTypeMismatch, "int64"),
        (pa.array(["a", "b"]), pa.array([[1.0, 2.0], [3.0]]), DimensionMismatch, "row 1 has 1 elements"),
        (pa.array(["a", "b"]), pa.array([[1.0], None]), InvalidRequest, "'vector', row 1: is null"),
        (pa.array(["a", "b"]), pa.array([[1.0], [None]]), InvalidRequest, "element"),
        (pa.array(["a", "b"]), pa.array([1.0, 2.0]), InvalidRequest, "FixedSizeList"),
        (pa.array(["a", "b"]), pa.array([["x"], ["y"]]), InvalidRequest, "float16 or float32"),
    ],
)
def test_bad_columns_are_named(keys, vectors, error, match):
    with pytest.raises(error, match=match):
        codecs.decode_upsert_arrow(_upsert(keys, vectors))


@pytest.mark.parametrize("body", [b"", b"not arrow at all", b"\xff\xff\xff\xff\x10\0\0\0"])
def test_bytes_that_are_no_arrow_are_refused(body):
    with pytest.raises(InvalidRequest, match="not a valid Arrow IPC stream"):
        codecs.decode_table(body)


def test_a_truncated_stream_is_refused():
    body = codecs.encode_upsert_arrow(["a", "b", "c"], VECTORS)
    with pytest.raises(InvalidRequest):
        codecs.decode_upsert_arrow(body[: len(body) // 2])


def test_text_that_is_no_utf8_is_refused():
    body = codecs.encode_keys_arrow(["aaaa", "bbbb"])
    assert b"aaaa" in body
    with pytest.raises(InvalidRequest):
        codecs.decode_keys_arrow(body.replace(b"aaaa", b"a\xff\xffa"))


@pytest.mark.parametrize("keys", [[1, "a"], [True], [2**63], [1.0], [None]])
def test_keys_of_mixed_or_other_types_are_refused(keys):
    with pytest.raises(KeyTypeMismatch):
        codecs.as_keys(keys)


def test_keys_of_numpy_become_what_they_are():
    assert codecs.as_keys(np.array(["a", "b"])) == ["a", "b"]
    assert codecs.as_keys(np.array([1, 2], dtype=np.int32)).dtype == np.int64


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, codecs.JSON),
        ("*/*", codecs.JSON),
        ("application/octet-stream;dtype=float32", codecs.RAW),
        ("application/json;q=0.5, application/vnd.apache.arrow.stream", codecs.ARROW),
        ("text/html, application/*;q=0.1", codecs.JSON),
    ],
)
def test_accept_is_negotiated(accept, expected):
    assert codecs.negotiate(accept).name == expected


def test_what_cannot_be_answered_is_not_acceptable():
    with pytest.raises(NotAcceptable):
        codecs.negotiate("text/html")
    with pytest.raises(NotAcceptable):
        codecs.negotiate("application/json;q=0")
    with pytest.raises(NotAcceptable, match="dtype=int8"):
        codecs.answer_dtype(codecs.negotiate("application/octet-stream;dtype=int8"), "float16")
    assert codecs.answer_dtype(codecs.negotiate(codecs.RAW), "float16") == "float16"


def test_content_types():
    assert codecs.content_type("application/json; charset=utf-8") == codecs.JSON
    with pytest.raises(UnsupportedMediaType, match="text/csv"):
        codecs.content_type("text/csv")


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("values", [pa.array([7] * 10_000), pa.array(["x"] * 10_000).dictionary_encode()])
def test_compressed_streams_are_refused_before_they_are_unpacked(values, compression):
    table, sink = pa.table({"key": values}), pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(InvalidRequest, match="compressed"):
        codecs.decode_keys_arrow(sink.getvalue().to_pybytes())
    assert len(codecs.decode_keys_arrow(codecs.encode_table(table))) == 10_000


def test_a_column_name_that_is_no_utf8_is_refused():
    body = codecs.encode_table(pa.table({"key": [1], "other": [2]})).replace(b"other", b"oth\xffr")
    with pytest.raises(InvalidRequest):
        codecs.decode_keys_arrow(body)
