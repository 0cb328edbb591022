"""What the upload routes of foundations and experts share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request

from bedplate.codecs import RAW, content_type
from bedplate_services.openapi import problem_responses

_BYTES = {"type": "string", "format": "binary"}
_WHOLE = {**_BYTES, "description": "the whole file as it is; docs/format.md says what is in it"}
_RANGE = {**_BYTES, "description": "the bytes that Content-Range names"}
PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the part's bytes",
        "content": {RAW: {"schema": {**_BYTES, "description": "a piece of the file as it is"}}},
    }
}
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "the bytes; ETag is their SHA-256", "content": {RAW: {"schema": _WHOLE}}},
    206: {"description": "the bytes of the range", "content": {RAW: {"schema": _RANGE}}},
    **problem_responses(416),
}
RangeHeader = Annotated[
    str | None, Header(alias="range", description="one range of bytes, e.g. `bytes=1048576-`")
]


async def _part_body(request: Request) -> bytes:
    content_type(request.headers.get("content-type"), (RAW,))
    return await request.body()


PartBody = Annotated[bytes, Depends(_part_body)]
PathPart = Annotated[int, Path(ge=0, le=9_999)]
