"""One served request as the impression log holds it, and its frame in a spool file.

A frame is ``magic "BPIR" | payload length u32 | crc32 of those 8 bytes | crc32 of the payload | payload``,
little-endian. The header has its own checksum: with a damaged length, a corrupt record in the middle of a
file would look like one that a killed process did not finish, and all that follows would be cut off silently.
docs/format.md describes the payload.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InternalError, InvalidRequest

_MAGIC = b"BPIR"
_HEAD = struct.Struct("<4sI")
_CHECKSUMS = struct.Struct("<II")
FRAME_HEADER_BYTES = _HEAD.size + _CHECKSUMS.size
_TAE_DTYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class ImpressionRecord:
    """One request with its m candidates, as it was answered.

    Attributes:
        request_id, user, surface: strings.
        served_at_us: int64 microseconds UTC; only events before it were seen.
        items: the m candidates, in the order of the request.
        expert: which expert version ranked them, e.g. ``action-ranker@3``, or None.
        scores: its scores, float32 [m], or None.
        tae: for each version such as ``core@2`` the embeddings, float16 or float32 [m, d], logged to the bit.
        predictions: for the same versions, the foundation's own probabilities, float32 [m].
    """

    request_id: str
    user: str
    surface: str
    served_at_us: int
    items: list[str]
    expert: str | None
    scores: NDArray[np.float32] | None
    tae: dict[str, NDArray[Any]]
    predictions: dict[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        rows = len(self.items)
        if rows == 0 or not self.request_id:
            raise InvalidRequest("An impression needs a request id and at least one item.")
        if "\x00" in self.request_id + self.user + "".join(self.items):
            raise InvalidRequest("Request id, user and items may hold no NUL character.")
        if self.scores is not None and self.scores.shape != (rows,):
            raise InvalidRequest(f"{rows} items need {rows} scores, not {self.scores.shape}.")
        if self.tae.keys() != self.predictions.keys():
            raise InvalidRequest("TAE and predictions must be of the same versions.")
        for version, vectors in self.tae.items():
            if vectors.ndim != 2 or len(vectors) != rows or str(vectors.dtype) not in _TAE_DTYPES:
                raise InvalidRequest(
                    f"The TAE of {version} must be float16 or float32 [{rows}, d], "
                    f"not {vectors.dtype} {list(vectors.shape)}."
                )
            if self.predictions[version].shape != (rows,):
                raise InvalidRequest(f"{rows} items need {rows} predictions of {version}.")


def encode_record(record: ImpressionRecord) -> bytes:
    """The payload: the same record always gives the same bytes."""
    versions = sorted(record.tae)
    header = {
        "request_id": record.request_id,
        "user": record.user,
        "surface": record.surface,
        "served_at_us": record.served_at_us,
        "items": record.items,
        "expert": record.expert,
        "scores": record.scores is not None,
        "versions": [
            [version, record.tae[version].shape[1], str(record.tae[version].dtype)] for version in versions
        ],
    }
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    parts = [struct.pack("<I", len(head)), head]
    if record.scores is not None:
        parts.append(_bytes(record.scores, "<f4"))
    for version in versions:
        dtype = "<f2" if record.tae[version].dtype == np.float16 else "<f4"
        parts.append(_bytes(record.tae[version], dtype))
        parts.append(_bytes(record.predictions[version], "<f4"))
    return b"".join(parts)


def decode_record(payload: bytes) -> ImpressionRecord:
    """The record that :func:`encode_record` wrote; arrays are read-only views of ``payload``."""
    (head_bytes,) = struct.unpack_from("<I", payload)
    offset = 4 + head_bytes
    header = json.loads(payload[4:offset])
    rows = len(header["items"])

    def take(count: int, dtype: str) -> NDArray[Any]:
        nonlocal offset
        values = np.frombuffer(payload, np.dtype(dtype), count, offset)
        offset += values.nbytes
        return values

    scores = take(rows, "<f4") if header["scores"] else None
    tae: dict[str, NDArray[Any]] = {}
    predictions: dict[str, NDArray[np.float32]] = {}
    for version, dim, dtype in header["versions"]:
        tae[version] = take(rows * dim, "<f2" if dtype == "float16" else "<f4").reshape(rows, dim)
        predictions[version] = take(rows, "<f4")
    return ImpressionRecord(
        request_id=header["request_id"],
        user=header["user"],
        surface=header["surface"],
        served_at_us=header["served_at_us"],
        items=header["items"],
        expert=header["expert"],
        scores=scores,
        tae=tae,
        predictions=predictions,
    )


def record_digest(payload: bytes) -> str:
    """SHA-256 of a payload: two records are the same if this is."""
    return sha256(payload).hexdigest()


def frame(payload: bytes) -> bytes:
    """The payload with its header, ready to be appended."""
    head = _HEAD.pack(_MAGIC, len(payload))
    return head + _CHECKSUMS.pack(zlib.crc32(head), zlib.crc32(payload)) + payload


def read_frames(data: bytes | memoryview, file_name: str) -> Iterator[bytes]:
    """The payloads in ``data``; a last frame that was not finished is left out.

    Raises:
        InternalError: a frame is damaged; the detail names ``file_name`` and the byte offset.
    """
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        if len(view) - offset < FRAME_HEADER_BYTES:
            if bytes(view[offset : offset + 4]) != _MAGIC[: len(view) - offset]:
                raise _corrupt(file_name, offset)
            return
        head = bytes(view[offset : offset + _HEAD.size])
        magic, length = _HEAD.unpack(head)
        head_crc, payload_crc = _CHECKSUMS.unpack_from(view, offset + _HEAD.size)
        if magic != _MAGIC or zlib.crc32(head) != head_crc:
            raise _corrupt(file_name, offset)
        start = offset + FRAME_HEADER_BYTES
        if start + length > len(view):
            return
        payload = bytes(view[start : start + length])
        if zlib.crc32(payload) != payload_crc:
            raise _corrupt(file_name, offset)
        yield payload
        offset = start + length


def _corrupt(file_name: str, offset: int) -> InternalError:
    return InternalError(
        f"The impression spool {file_name} is damaged at byte {offset}: the disk or another program changed "
        "it. Its records were not sealed; restore the file, or cut it there to keep what comes before.",
        file=file_name,
        offset=offset,
    )


def _bytes(values: NDArray[Any], dtype: str) -> bytes:
    return np.ascontiguousarray(values, dtype=np.dtype(dtype)).tobytes()
