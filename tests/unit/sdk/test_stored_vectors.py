"""Compressed rows: how far they are from what was stored, and that fast decoding is what the format says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from bedplate.stored_vectors import LARGEST, Storage
from bedplate.wire.registry import Dtype

COMPRESSED: tuple[Dtype, ...] = ("int8", "int4")
GROUP = 32
NUMBERS = st.floats(-LARGEST, LARGEST, width=32)
VECTORS = st.tuples(st.integers(0, 5), st.integers(1, 100)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=NUMBERS)
)


def reference(rows: NDArray[np.uint8], dim: int, dtype: str) -> NDArray[np.float32]:
    """docs/format.md, number by number."""
    decoded = np.zeros((len(rows), dim), np.float32)
    codes_end = dim if dtype == "int8" else (dim + 1) // 2
    for row, data in enumerate(rows):
        scales = data[codes_end:].tobytes()
        for column in range(dim):
            scale = 0 if dtype == "int8" else column // GROUP
            factor = np.frombuffer(b"\0\0" + scales[2 * scale : 2 * scale + 2], "<f4")[0]
            if dtype == "int8":
                code = int(data[column].view(np.int8))
            else:
                byte = int(data[column % codes_end])
                code = byte >> 4 if column >= codes_end else byte & 15
                code -= 16 * (code >= 8)
            decoded[row, column] = code * factor
    return decoded


@pytest.mark.parametrize("dtype", COMPRESSED)
@given(vectors=VECTORS)
@settings(deadline=None)
def test_decoding_is_what_the_format_says(dtype: Dtype, vectors: NDArray[np.float32]) -> None:
    storage = Storage(dtype, vectors.shape[1])
    rows = storage.encode(vectors)
    assert rows.shape == (len(vectors), storage.width)
    assert rows.dtype == np.uint8
    expected = reference(rows, storage.dim, dtype)
    assert (storage.decode(rows, "float32") == expected).all()
    # Bit for bit what rounding once gives, subnormal numbers and zeros with a sign included.
    halves = storage.decode(rows, "float16")
    assert (halves.view(np.uint16) == expected.astype(np.float16).view(np.uint16)).all()
    assert np.isfinite(halves).all()
    assert (storage.decode(rows).view(np.uint16) == halves.view(np.uint16)).all()


@pytest.mark.parametrize("dtype", COMPRESSED)
@given(vectors=VECTORS)
@example(vectors=np.array([[62141.0] + [3509.0] * 31], np.float32))
@settings(deadline=None)
def test_numbers_move_by_a_share_of_the_largest_of_their_scale(
    dtype: Dtype, vectors: NDArray[np.float32]
) -> None:
    storage = Storage(dtype, vectors.shape[1])
    moved = np.abs(storage.decode(storage.encode(vectors), "float32") - vectors)
    width = storage.dim if dtype == "int8" else GROUP
    for start in range(0, storage.dim, width):
        part = slice(start, start + width)
        largest = np.abs(vectors[:, part]).max(axis=1, initial=0)
        # Half a step. For int4 the codes may reach to 0.8 of the largest number alone: it loses 0.2, which
        # are 1.6 steps, and the number opposite to it, which has 7 codes and not 8, 0.3.
        # 2^-8: the rounding of the scale; 2^-30 is the least scale.
        step = largest / (127 if dtype == "int8" else 8) * (1 + 2**-8) + 2.0**-30
        share = 0.51 + 127 * 2**-9 if dtype == "int8" else 2.4 + 5.6 * 2**-9
        assert (moved[:, part].max(axis=1, initial=0) <= share * step).all()


@pytest.mark.parametrize(("dtype", "mean", "bytes_share"), [("int8", 0.008, 0.52), ("int4", 0.09, 0.29)])
@pytest.mark.parametrize("dim", [256, 64, 33])
def test_the_error_and_the_bytes_of_normal_vectors(
    dtype: Dtype, mean: float, bytes_share: float, dim: int
) -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, dim)).astype(np.float32)
    storage = Storage(dtype, dim)
    decoded = storage.decode(storage.encode(vectors), "float32")
    error = np.linalg.norm(decoded - vectors, axis=1) / np.linalg.norm(vectors, axis=1)
    assert error.mean() < mean
    assert storage.row_bytes / (2 * dim) <= bytes_share + 2 / dim


@pytest.mark.parametrize("dtype", COMPRESSED)
@pytest.mark.parametrize("dim", [1, 2, 31, 32, 33, 65])
def test_zeros_stay_zeros_and_equal_numbers_equal(dtype: Dtype, dim: int) -> None:
    storage = Storage(dtype, dim)
    rows = storage.encode(np.stack([np.zeros(dim), np.full(dim, 0.3), np.full(dim, -7)]).astype(np.float32))
    decoded = storage.decode(rows, "float32")
    assert (decoded[0] == 0).all()
    assert (decoded[1:] == decoded[1:, :1]).all()
    assert np.allclose(decoded[1:, 0], [0.3, -7], rtol=2**-8)
    assert (storage.decode(np.zeros((1, storage.width), np.uint8), "float16") == 0).all()


@pytest.mark.parametrize("dtype", COMPRESSED)
def test_a_row_is_compressed_by_itself(dtype: Dtype) -> None:
    """A row keeps its bytes whoever its neighbours are, so writes and embeddings of it agree."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((3000, 500)) * np.exp(5 * random.standard_normal((3000, 1)))
    vectors = np.clip(vectors, -LARGEST, LARGEST).astype(np.float32)
    storage = Storage(dtype, 500)
    together = storage.encode(vectors)
    for row in (0, 1, 2999):
        assert (storage.encode(vectors[row : row + 1]) == together[row]).all()
        assert (storage.decode(together[row : row + 1]) == storage.decode(together)[row]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_are_stored_as_they_are(dtype: Dtype) -> None:
    storage = Storage(dtype, 3)
    vectors = np.arange(6, dtype=dtype).reshape(2, 3)
    rows = storage.encode(vectors)
    assert np.shares_memory(storage.decode(rows), vectors)
    assert storage.decode(rows).dtype == dtype
    assert storage.decode(rows, "float32").dtype == np.float32
