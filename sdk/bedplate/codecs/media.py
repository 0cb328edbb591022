"""Media types, the ``x-bedplate-*`` headers and content negotiation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bedplate.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
RAW = "application/octet-stream"
PROBLEM = "application/problem+json"

HEADER_REQUEST_ID = "x-request-id"
HEADER_VERSION = "x-bedplate-version"
HEADER_SNAPSHOT = "x-bedplate-snapshot"
HEADER_SEQUENCE = "x-bedplate-sequence"
HEADER_DIM = "x-bedplate-dim"
HEADER_DTYPE = "x-bedplate-dtype"
HEADER_ROWS = "x-bedplate-rows"
HEADER_SHARDS = "x-bedplate-shards"
HEADER_AFTER = "x-bedplate-after"

VectorDtype = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type and its parameters, both in lower case."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MediaType:
        """Parse ``type/subtype; name=value``."""
        name, *rest = text.lower().split(";")
        pairs = (part.partition("=") for part in rest)
        return cls(name.strip(), {key.strip(): value.strip().strip('"') for key, _, value in pairs})

    def matches(self, name: str) -> bool:
        """Whether this media range covers the media type ``name``."""
        if self.name in ("*/*", "*"):
            return True
        kind, _, subtype = self.name.partition("/")
        return self.name == name or (subtype == "*" and name.startswith(f"{kind}/"))


def _quality(media: MediaType) -> float:
    try:
        return float(media.parameters.get("q", "1"))
    except ValueError:
        return 0.0


def negotiate(accept: str | None, offered: Sequence[str] = (JSON, ARROW, RAW)) -> MediaType:
    """Choose what to answer with: the best-liked media range that something in ``offered`` meets.

    Without an ``Accept`` header, and for ``*/*``, the first of ``offered`` is taken.

    Raises:
        NotAcceptable: nothing in ``offered`` is acceptable.
    """
    if not accept or not accept.strip():
        return MediaType(offered[0])
    ranges = [MediaType.parse(part) for part in accept.split(",") if part.strip()]
    # sorted() is stable: equal qualities keep the caller's order.
    for wanted in sorted(ranges, key=_quality, reverse=True):
        if _quality(wanted) <= 0:
            continue
        for name in offered:
            if wanted.matches(name):
                return MediaType(name, wanted.parameters)
    raise NotAcceptable(f"Accept: {accept} cannot be answered; ask for one of {', '.join(offered)}.")


def content_type(header: str | None, allowed: Sequence[str] = (JSON, ARROW, RAW)) -> str:
    """The body's media type without parameters; a missing header counts as the first of ``allowed``.

    Raises:
        UnsupportedMediaType: it is not in ``allowed``.
    """
    if not header or not header.strip():
        return allowed[0]
    name = MediaType.parse(header).name
    if name not in allowed:
        raise UnsupportedMediaType(
            f"Content-Type: {name} is not read here; send one of {', '.join(allowed)}."
        )
    return name


def answer_dtype(media: MediaType, storage: VectorDtype) -> VectorDtype:
    """The element type of a raw answer: the ``dtype`` parameter of ``Accept``, else the storage dtype.

    Raises:
        NotAcceptable: the parameter is neither ``float32`` nor ``float16``.
    """
    asked = media.parameters.get("dtype", storage)
    if asked == "float32":
        return "float32"
    if asked == "float16":
        return "float16"
    raise NotAcceptable(f"dtype={asked} cannot be answered; ask for dtype=float32 or dtype=float16.")
