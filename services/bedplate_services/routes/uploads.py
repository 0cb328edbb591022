"""What the upload routes of foundations and experts share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from bedplate.codecs import RAW, content_type

_BYTES = {"type": "string", "format": "binary"}
PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the part's bytes",
        "content": {RAW: {"schema": _BYTES}},
    }
}
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "the bytes; ETag is their SHA-256", "content": {RAW: {"schema": _BYTES}}}
}


async def _part_body(request: Request) -> bytes:
    content_type(request.headers.get("content-type"), (RAW,))
    return await request.body()


PartBody = Annotated[bytes, Depends(_part_body)]
PathPart = Annotated[int, Path(ge=0, le=9_999)]
