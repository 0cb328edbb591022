"""What every module of routes shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar
from urllib.parse import quote

from fastapi import Depends, Path, Request
from fastapi.responses import StreamingResponse

from bedplate.errors import NotFound
from bedplate.references import NAME_PATTERN
from bedplate.wire.common import Page
from bedplate_services.composition import Platform
from bedplate_store.objects import ObjectStore

ItemT = TypeVar("ItemT")
_CHUNK_BYTES = 4 << 20


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _platform_dependency(request: Request) -> Platform:
    return _platform(request)


House = Annotated[Platform, Depends(_platform_dependency)]
"""Parameter of a route: databases, objects, clock."""

PathName = Annotated[str, Path(pattern=NAME_PATTERN)]
PathNumber = Annotated[int, Path(alias="version", ge=1, le=2**31 - 1)]
"""A version's number."""


def page(items: Sequence[ItemT], following: str | None = None) -> Page[ItemT]:
    return Page(items=list(items), next=following)


def stream_object(
    objects: ObjectStore, key: str, *, name: str, digest: str | None = None
) -> StreamingResponse:
    """The bytes of an object in chunks, never whole in memory.

    Raises:
        NotFound: there is no such object.
    """
    size = objects.size(key)
    if size is None:
        raise NotFound(f"The object of {name} is not there; it may have been collected.")
    headers = {
        "content-length": str(size),
        "content-disposition": f"attachment; filename*=utf-8''{quote(name)}",
    }
    if digest:
        headers["etag"] = f'"{digest}"'

    def chunks() -> Iterator[bytes]:
        for start in range(0, size, _CHUNK_BYTES):
            yield objects.get_range(key, start, min(_CHUNK_BYTES, size - start))

    return StreamingResponse(chunks(), headers=headers, media_type="application/octet-stream")
