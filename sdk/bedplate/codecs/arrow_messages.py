"""A look into the messages of an Arrow IPC stream before anything in them is unpacked.

A compressed buffer of five kilobytes may unpack to hundreds of megabytes, and pyarrow unpacks while it
reads. Whether a message is compressed stands in its metadata, a FlatBuffer that pyarrow has verified but
does not show.
Layout: arrow.apache.org/docs/format/Columnar.html and Message.fbs.
"""

from __future__ import annotations

import struct

import pyarrow as pa

_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH, _DICTIONARY_DATA, _BATCH_COMPRESSION = 2, 3, 1, 3
"""Places of the fields in Message, DictionaryBatch and RecordBatch."""


def any_compressed(stream: pa.Buffer) -> bool:
    """Whether a message of the stream has compressed buffers.

    Raises:
        pa.ArrowException, OSError, struct.error: the bytes are not a complete stream.
    """
    return any(_compressed(message) for message in pa.ipc.MessageReader.open_stream(stream))


def body_length(metadata: bytes) -> int:
    """Bytes of the body that follows the metadata of a message.

    Raises:
        struct.error: they are no message's metadata.
    """
    field = _field(metadata, _table(metadata, 0), _MESSAGE_BODY_LENGTH)
    (length,) = struct.unpack_from("<q", metadata, field) if field else (0,)
    return int(length)


def _compressed(message: pa.Message) -> bool:
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = message.metadata.to_pybytes()
    batch = _table(metadata, _field(metadata, _table(metadata, 0), _MESSAGE_HEADER))
    if message.type == "dictionary":
        batch = _table(metadata, _field(metadata, batch, _DICTIONARY_DATA))
    return _field(metadata, batch, _BATCH_COMPRESSION) != 0


def _table(metadata: bytes, place: int) -> int:
    """Where the table begins that the offset at ``place`` points to."""
    (offset,) = struct.unpack_from("<I", metadata, place)
    return place + int(offset)


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a table's field lies; 0 where it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    slots = table - back
    (size,) = struct.unpack_from("<H", metadata, slots)
    slot = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", metadata, slots + slot) if slot < size else (0,)
    return table + int(offset) if offset else 0
