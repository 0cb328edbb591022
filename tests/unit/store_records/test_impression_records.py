"""Records and their frames: what is read is what was written, or an error, or a cut last record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InternalError, InvalidRequest
from bedplate_store.impression_records import (
    ImpressionRecord,
    decode_record,
    encode_record,
    frame,
    read_frames,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)


@st.composite
def impression_records(draw: st.DrawFn) -> ImpressionRecord:
    items = draw(st.lists(TEXT, min_size=1, max_size=4))
    versions = draw(st.lists(st.sampled_from(["core@1", "core@2", "core@10"]), unique=True))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    tae: dict[str, Any] = {}
    for version in versions:
        dim = draw(st.integers(1, 5))
        if draw(st.booleans()):
            tae[version] = generator.integers(0, 2**16, (len(items), dim), np.uint16).view(np.float16)
        else:
            tae[version] = generator.integers(0, 2**32, (len(items), dim), np.uint32).view(np.float32)
    return ImpressionRecord(
        request_id=draw(TEXT),
        user=draw(TEXT),
        surface="feed",
        served_at_us=draw(st.integers(0, 2**53)),
        items=items,
        expert=draw(st.none() | TEXT),
        scores=draw(st.sampled_from([None, generator.random(len(items), np.float32)])),
        tae=tae,
        predictions={version: generator.random(len(items), np.float32) for version in versions},
    )


def same_bits(left: Any, right: Any) -> bool:
    return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())


@given(impression_records())
def test_a_record_comes_back_bit_for_bit(record: ImpressionRecord) -> None:
    payload = encode_record(record)
    found = decode_record(payload)
    assert encode_record(found) == payload
    for name in ("request_id", "user", "surface", "served_at_us", "items", "expert"):
        assert getattr(found, name) == getattr(record, name)
    assert (found.scores is None) == (record.scores is None)
    assert found.scores is None or same_bits(found.scores, record.scores)
    assert sorted(found.tae) == sorted(record.tae)
    for version, vectors in record.tae.items():
        assert same_bits(found.tae[version], vectors)
        assert same_bits(found.predictions[version], record.predictions[version])


@given(st.lists(st.binary(max_size=20), max_size=4), st.data())
def test_a_torn_last_frame_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frame(payload) for payload in payloads)
    last = frame(data.draw(st.binary(max_size=20)))
    torn = last[: data.draw(st.integers(0, len(last) - 1))]
    assert [*read_frames(whole + torn, "spool")] == payloads


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_a_damaged_byte_is_an_error_that_names_the_place(payloads: list[bytes], data: st.DataObject) -> None:
    spool = bytearray(b"".join(frame(payload) for payload in payloads))
    position = data.draw(st.integers(0, len(spool) - 1))
    spool[position] ^= data.draw(st.integers(1, 255))
    starts = np.cumsum([0, *(len(frame(payload)) for payload in payloads)])
    offset = int(starts[np.searchsorted(starts, position, side="right") - 1])
    with pytest.raises(InternalError, match=f"/spool/x.open is damaged at byte {offset}:") as caught:
        [*read_frames(spool, "/spool/x.open")]
    assert caught.value.context == {"file": "/spool/x.open", "offset": offset}


@given(st.binary(min_size=1, max_size=15).filter(lambda junk: not b"BPIR".startswith(junk[:4])))
def test_junk_at_the_end_is_not_a_torn_frame(junk: bytes) -> None:
    with pytest.raises(InternalError):
        [*read_frames(frame(b"payload") + junk, "spool")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": ""},
        {"items": []},
        {"items": ["a", "b\x00"]},
        {"scores": np.zeros(3, np.float32)},
        {"tae": {}},
        {"tae": {"core@1": np.zeros((2, 3), np.float64)}},
        {"tae": {"core@1": np.zeros((3, 3), np.float16)}},
        {"tae": {"core@1": np.zeros(2, np.float16)}},
        {"predictions": {"core@1": np.zeros((2, 1), np.float32)}},
    ],
)
def test_a_record_that_does_not_fit_together_is_refused(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "request_id": "r",
        "user": "u",
        "surface": "feed",
        "served_at_us": 1,
        "items": ["a", "b"],
        "expert": None,
        "scores": None,
        "tae": {"core@1": np.zeros((2, 3), np.float16)},
        "predictions": {"core@1": np.zeros(2, np.float32)},
    }
    ImpressionRecord(**fields)
    with pytest.raises(InvalidRequest):
        ImpressionRecord(**{**fields, **wrong})
