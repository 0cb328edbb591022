"""Arrow answers sent batch by batch, so that no table is ever whole in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
from fastapi.responses import StreamingResponse

from bedplate.codecs import ARROW


def encode(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The bytes of one Arrow IPC stream, a chunk for each batch."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield _take(sink)
    yield _take(sink)


def _take(sink: io.BytesIO) -> bytes:
    chunk = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return chunk


def respond(chunks: Iterator[bytes]) -> StreamingResponse:
    """An answer whose first chunk is made before the status is sent, so that an early error is still a
    problem.
    """
    first = next(chunks)

    def all_chunks() -> Iterator[bytes]:
        yield first
        yield from chunks

    return StreamingResponse(all_chunks(), media_type=ARROW)
