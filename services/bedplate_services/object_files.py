"""Objects as downloads: whole or a byte range of them, so that a download that broke off goes on."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from fastapi.responses import StreamingResponse

from bedplate.codecs import RAW
from bedplate.errors import NotFound, RangeNotSatisfiable
from bedplate_services.streams import Chunk, ahead
from bedplate_store.objects import ObjectStore

_CHUNK_BYTES = 4 << 20
_PAGE_BYTES = 4096
_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")


def respond(
    objects: ObjectStore, key: str, *, name: str, digest: str | None = None, range_header: str | None = None
) -> StreamingResponse:
    """The bytes of an object, never whole in memory.

    Args:
        digest: SHA-256, sent as the ETag.
        range_header: the request's ``Range``. One range is answered with 206; several, or what is no range of
            bytes, with the whole object, as HTTP allows.

    Raises:
        NotFound: there is no such object.
        RangeNotSatisfiable: the range begins behind its end.
    """
    size = objects.size(key)
    if size is None:
        raise NotFound(f"The object of {name} is not there; it may have been collected.")
    wanted = _range(range_header, size)
    headers = {
        "accept-ranges": "bytes",
        "content-length": str(size if wanted is None else len(wanted)),
        "content-disposition": f"attachment; filename*=utf-8''{quote(name)}",
    }
    if digest:
        headers["etag"] = f'"{digest}"'
    if wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    chunks = _chunks(objects, key, wanted or range(size))
    status = 200 if wanted is None else 206
    return StreamingResponse(ahead(chunks), status, headers=headers, media_type=RAW)


def _range(header: str | None, size: int) -> range | None:
    match = _RANGE.match((header or "").replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise RangeNotSatisfiable(f"The object has {size} bytes; ask for a range that begins before its end.")
    return range(start, stop)


def _chunks(objects: ObjectStore, key: str, wanted: range) -> Iterator[list[Chunk]]:
    path = objects.local_path(key)
    if path is not None and len(wanted):
        yield from _mapped(path, wanted)
        return
    for start in range(wanted.start, wanted.stop, _CHUNK_BYTES):
        yield [objects.get_range(key, start, min(_CHUNK_BYTES, wanted.stop - start))]


def _mapped(path: Path, wanted: range) -> Iterator[list[Chunk]]:
    # Sent from the page cache without a copy in this process; the mapping goes with the last chunk.
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for start in range(wanted.start, wanted.stop, _CHUNK_BYTES):
        chunk = view[start : min(start + _CHUNK_BYTES, wanted.stop)]
        # Its pages are read from disk here, in the thread: the event loop must not wait for them.
        max(chunk[::_PAGE_BYTES])
        yield [chunk]
