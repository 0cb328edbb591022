"""Documents about shards and the store processes that serve them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from bedplate.wire.common import Name, WireModel

SHARDS_MAX = 128
ALL_SPACES = "*"
_Space = Annotated[
    str, Field(max_length=160, description="core@7/item, or * for every space without a row of its own")
]
_Shard = Annotated[int, Field(ge=0, lt=SHARDS_MAX)]


class ShardAssignment(WireModel):
    """The store node that serves a shard."""

    space: _Space
    shard: _Shard
    node: str
    assigned_at: datetime


class ShardAssign(WireModel):
    """Move shards, all or none, if all of them are where the caller believes; null: nobody's."""

    space: _Space = ALL_SPACES
    shards: list[_Shard] = Field(min_length=1, max_length=SHARDS_MAX)
    node: Name | None
    expected_node: Name | None


class ShardMove(WireModel):
    """A change of the assignments."""

    space: str
    shard: int
    from_node: str | None
    to_node: str | None
    moved_by: str
    moved_at: datetime


class ShardsAnswered(WireModel):
    """How many of the shards that a request needed answered it."""

    answered: int
    of: int
