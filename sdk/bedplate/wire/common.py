"""What every document shares."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bedplate.references import NAME_PATTERN

ItemT = TypeVar("ItemT")


class WireModel(BaseModel):
    """Base of every document: immutable, and a member we do not know is an error, not silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _require_zone(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("the time needs a zone, e.g. 2026-11-22T10:00:00Z")
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["core"])]
Time = Annotated[datetime, AfterValidator(_require_zone)]
Key = Annotated[str, Field(min_length=1, max_length=256)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Page(WireModel, Generic[ItemT]):
    """A list answer. ``next`` is the cursor of the following page, None on the last."""

    items: list[ItemT]
    next: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem document, ``application/problem+json``."""

    type: str = Field(examples=["urn:bedplate:problem:alias_moved"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["alias_moved"])
    request_id: str
    model_config = ConfigDict(extra="allow")
