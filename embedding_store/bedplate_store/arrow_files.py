"""Arrow IPC files as immutable objects: the same rows always give the same bytes."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa

from bedplate_store.objects import ObjectStore
from bedplate_store.objects.port import damaged


def arrow_bytes(table: pa.Table) -> pa.Buffer:
    """``table`` as an IPC file of one uncompressed record batch, whatever slices and chunks it came in."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        if table.num_rows:
            columns = [_own_buffers(column) for column in table.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=table.schema))
    return sink.getvalue()


def _own_buffers(column: pa.ChunkedArray) -> pa.Array:
    # A slice would be written with up to 63 bytes of what lies behind it. Concatenating two arrays always
    # copies into buffers of the right size, so an empty one is added.
    return pa.concat_arrays([*column.chunks, column.chunk(0)[:0]])


def read_arrow(objects: ObjectStore, key: str, digest: str) -> pa.Table:
    """The table of an object, mapped into memory where it lies on this machine.

    Raises:
        NotFound: there is no such object.
        ObjectDamaged: its bytes do not have the SHA-256 ``digest``.
    """
    path = objects.local_path(key)
    if path is None:
        source = pa.py_buffer(objects.get(key, sha256=digest))
    else:
        source = pa.memory_map(str(path)).read_buffer()
        if (found := sha256(source).hexdigest()) != digest:
            raise damaged(key, digest, found)
    return pa.ipc.open_file(source).read_all()
