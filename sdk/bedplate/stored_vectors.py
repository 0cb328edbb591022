"""How vectors are stored: as numbers, or compressed to codes and scales. docs/format.md specifies the bytes.

A compressed row is one run of bytes, its codes and behind them its scales, so that whatever copies rows
(gathers, merges, overlays) copies both at once and never quantises anything twice. A stored number is
``code * scale``, exactly: the scale has 8 significant bits (bfloat16) and a code at most 8, so their product
is the same float32 whoever computes it, and rounds to float16 once.

Shapes: n rows, d the dimension, w stored elements of a row, g scales of a row.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs.columns import Vectors
from bedplate.codecs.media import VectorDtype
from bedplate.wire.registry import Dtype

StoredRows: TypeAlias = NDArray[np.float16] | NDArray[np.float32] | NDArray[np.uint8]
"""[n, w]: float16 and float32 spaces the numbers themselves, int8 and int4 spaces bytes."""

LARGEST = 65_000.0
"""Magnitude that int8 and int4 spaces take: what is answered must fit in float16 however the scale rounds."""
_GROUP = 32
"""Numbers of an int4 row that share a scale: docs/adr/0018-compression.md has the errors of other sizes."""
_SMALLEST_SCALE = np.float32(2.0**-30)
"""Its codes are below half of what float16 resolves, and every product is exact in :func:`_float16_bits`."""
_RANGES = (1.0, 0.9, 0.8)
"""Shares of the largest number that an int4 group's codes may reach to; the one with the least error wins."""
_DECODED_AT_ONCE = 1 << 15
"""Numbers decoded at a time: the steps between stay in the second-level cache."""
_ENCODED_AT_ONCE = 1 << 20
_HALF_BIAS = np.float32(2.0**-112)  # from float32's exponents to float16's


@dataclass(frozen=True, slots=True)
class Storage:
    """The storage of vectors of dimension ``dim`` in a space of ``dtype``."""

    dtype: Dtype
    dim: int

    @property
    def compressed(self) -> bool:
        return self.dtype in ("int8", "int4")

    @property
    def answers(self) -> VectorDtype:
        """The element type of answers that ask for none: float16 where the storage is compressed."""
        return "float32" if self.dtype == "float32" else "float16"

    @property
    def element(self) -> np.dtype[Any]:
        """What a stored row is made of, little-endian."""
        return np.dtype(np.uint8) if self.compressed else np.dtype(self.dtype).newbyteorder("<")

    @property
    def width(self) -> int:
        """Elements of a stored row."""
        return self._code_bytes + 2 * self._scales if self.compressed else self.dim

    @property
    def row_bytes(self) -> int:
        return self.width * self.element.itemsize

    @property
    def _code_bytes(self) -> int:
        return self.dim if self.dtype == "int8" else -(-self.dim // 2)

    @property
    def _scales(self) -> int:
        return 1 if self.dtype == "int8" else -(-self.dim // _GROUP)

    def empty(self, rows: int) -> StoredRows:
        """Room for so many rows."""
        room: StoredRows = np.empty((rows, self.width), self.element)
        return room

    def of_bytes(self, data: NDArray[np.uint8]) -> StoredRows:
        """The rows in the bytes of a ``vectors`` column, not copied."""
        rows: StoredRows = data.view(self.element).reshape(-1, self.width)
        return rows

    def encode(self, vectors: Vectors) -> StoredRows:
        """``vectors`` [n, d], finite and of at most :data:`LARGEST` where compressed, as stored."""
        if not self.compressed:
            return vectors.astype(self.element, copy=False)
        rows = np.empty((len(vectors), self.width), np.uint8)
        step = max(1, _ENCODED_AT_ONCE // self.dim)
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step].astype(np.float32, copy=False)
            quantise = _quantise_int8 if self.dtype == "int8" else _quantise_int4
            codes, scales = quantise(part)
            rows[start : start + step, : self._code_bytes] = codes
            rows[start : start + step, self._code_bytes :] = scales.view(np.uint8).reshape(len(part), -1)
        return rows

    @overload
    def decode(
        self, rows: StoredRows, dtype: Literal["float32"], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]: ...

    @overload
    def decode(self, rows: StoredRows, dtype: VectorDtype | None = None) -> Vectors: ...

    def decode(
        self, rows: StoredRows, dtype: VectorDtype | None = None, out: Vectors | None = None
    ) -> Vectors:
        """``rows`` [n, w] as numbers [n, d], None: :attr:`answers`. No copy where they are stored so.

        Compressed rows are decoded into ``out``, of that type and shape, if it is given.
        """
        wanted = np.dtype(dtype or self.answers)
        if not self.compressed:
            return rows.astype(wanted, copy=False)
        vectors: Vectors = np.empty((len(rows), self.dim), wanted) if out is None else out
        halves = wanted == np.float16
        step = max(1, _DECODED_AT_ONCE // self.dim)
        columns = self.dim if self.dtype == "int8" else 2 * self._code_bytes
        for start in range(0, len(rows), step):
            part = cast(NDArray[np.uint8], rows[start : start + step])
            numbers, spare = _SCRATCH.of(len(part), columns)
            in_place = not halves and columns == self.dim
            if in_place:
                numbers = cast(NDArray[np.float32], vectors[start : start + step])
            self._multiply(part, numbers, spare, _HALF_BIAS if halves else np.float32(1))
            if halves:
                bits = _float16_bits(numbers.view(np.uint32), spare.view(np.uint32))
                np.copyto(
                    vectors[start : start + step].view(np.uint16), bits[:, : self.dim], casting="unsafe"
                )
            elif not in_place:
                vectors[start : start + step] = numbers[:, : self.dim]
        return vectors

    def _multiply(
        self,
        rows: NDArray[np.uint8],
        numbers: NDArray[np.float32],
        spare: NDArray[np.float32],
        bias: np.float32,
    ) -> None:
        """code * scale * ``bias`` into the first d columns of ``numbers``; ``spare`` is destroyed."""
        scales = np.ascontiguousarray(rows[:, self._code_bytes :]).view("<u2")
        factors = _widened(scales) * bias
        codes = rows[:, : self._code_bytes].view(np.int8)
        if self.dtype == "int8":
            np.multiply(codes, factors, out=numbers)
            return
        lower = spare.view(np.int8)[:, : self._code_bytes]
        np.right_shift(np.left_shift(codes, 4, out=lower), 4, out=lower)
        np.copyto(numbers[:, : self._code_bytes], lower)
        np.copyto(numbers[:, self._code_bytes :], np.right_shift(codes, 4, out=lower))
        whole = self.dim // _GROUP * _GROUP
        for grouped, each in (
            (numbers[:, :whole], factors[:, : whole // _GROUP]),
            (numbers[:, whole:], factors[:, whole // _GROUP :]),
        ):
            if each.size:
                blocks = grouped.reshape(len(rows), each.shape[1], -1, copy=False)
                np.multiply(blocks, each[:, :, None], out=blocks)


class _Scratch(threading.local):
    """Memory for the steps of decoding, for each thread its own.

    Measured, 100 x 256 of int8 to float16: 21 us, and 73 with new arrays for the steps.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)

    def of(self, rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Two arrays [rows, columns]; what they hold is undefined."""
        count = rows * columns
        if len(self._memory) < 2 * count:
            self._memory = np.empty(2 * count, np.float32)
        first, second = self._memory[:count], self._memory[count : 2 * count]
        return first.reshape(rows, columns), second.reshape(rows, columns)


_SCRATCH = _Scratch()


def _quantise_int8(vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Codes [n, d] in two's complement, -127 to 127, and the scale of each row as bfloat16 [n, 1]."""
    scales = _bfloat16(np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127))
    codes = np.rint(vectors / _widened(scales))
    return np.clip(codes, -127, 127).astype(np.int8).view(np.uint8), scales


def _quantise_int4(vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Two codes a byte [n, ceil(d / 2)], and the scale of each group of a row as bfloat16 [n, g].

    Codes are -8 to 7 and the scale has the sign that gives a group's largest number the code -8. The byte
    at i holds the code of number i in its lower half and that of number i + ceil(d / 2) in its upper.
    """
    rows, dim = vectors.shape
    groups = -(-dim // _GROUP)
    padded = np.zeros((rows, groups, _GROUP), np.float32)
    padded.reshape(rows, -1)[:, :dim] = vectors
    largest = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[:, :, None], axis=2)
    codes = np.zeros(padded.shape, np.int8)
    scales = np.zeros((rows, groups, 1), np.uint16)
    least = np.full((rows, groups, 1), np.inf, np.float32)
    for share in _RANGES:
        tried = _bfloat16(largest * np.float32(share / -8))
        rounded = np.clip(np.rint(padded / _widened(tried)), -8, 7)
        error = np.square(rounded * _widened(tried) - padded).sum(axis=2, keepdims=True)
        better = error < least
        codes = np.where(better, rounded.astype(np.int8), codes)
        scales = np.where(better, tried, scales)
        least = np.minimum(error, least)
    half = -(-dim // 2)
    flat = codes.reshape(rows, -1)[:, :dim].view(np.uint8)
    packed: NDArray[np.uint8] = flat[:, :half] & np.uint8(15)
    packed[:, : dim - half] |= flat[:, half:] << 4
    return packed, scales[:, :, 0]


def _bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16, no nearer to zero than the least scale and never zero itself, as its bits."""
    kept = np.copysign(np.maximum(np.abs(numbers), _SMALLEST_SCALE), numbers).astype(np.float32)
    return ((kept.view(np.uint32) + 0x8000) >> 16).astype("<u2")


def _widened(scales: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (scales.astype(np.uint32) << 16).view(np.float32)


def _float16_bits(bits: NDArray[np.uint32], spare: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """float32 numbers that were multiplied by 2^-112, rounded to float16, halves to even; destroys both.

    After that product float32's exponent is float16's, also where float16 is subnormal, and the 13 lowest
    bits are too many. Measured, 100 x 256: 15 us where NumPy's own cast takes 36 to 120.
    """
    np.right_shift(bits, 13, out=spare)
    np.bitwise_and(spare, 1, out=spare)
    np.add(spare, bits, out=spare)
    np.add(spare, 0xFFF, out=spare)
    np.right_shift(spare, 13, out=bits)
    np.right_shift(bits, 3, out=spare)
    np.bitwise_and(spare, 0x8000, out=spare)  # the sign, from bit 18 to bit 15
    return np.bitwise_or(bits, spare, out=spare)
