"""Documents of the inference service: target-aware embeddings and ranking."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from bedplate.wire.common import Key, Name, Time, WireModel


class TaeRequest(WireModel):
    """The TAE of every candidate for every active version; logged with the impression unless asked not to."""

    user: Key
    surface: Name
    candidates: list[Key] = Field(min_length=1, max_length=2000)
    at: Time | None = Field(default=None, description="as of; only events before it are seen. None: now")
    versions: list[str] | None = Field(default=None, description="None: every active version")
    request_id: str | None = Field(default=None, min_length=1, max_length=64, description="None: one is made")
    log: bool = True
    include_vectors: bool = True


class TaeBatch(WireModel):
    """Several requests in one call; each is answered and logged as if it had come alone."""

    requests: list[TaeRequest] = Field(min_length=1, max_length=256)


class VersionTae(WireModel):
    version: str = Field(examples=["core@7"])
    dim: int
    vectors: list[list[float]] | None = Field(
        description="[candidates][dim]; None where the caller asked for none"
    )
    predictions: list[float] = Field(description="the foundation's own probability of the main task")


class TaeAnswer(WireModel):
    request_id: str
    served_at: datetime
    history_events: int
    versions: list[VersionTae]


class TaeBatchAnswer(WireModel):
    answers: list[TaeAnswer]


class RankRequest(WireModel):
    user: Key
    candidates: list[Key] = Field(min_length=1, max_length=2000)
    at: Time | None = None
    expert: Name | None = Field(default=None, description="None: the surface's only serving expert")
    request_id: str | None = Field(default=None, min_length=1, max_length=64)
    log: bool = True


class RankAnswer(WireModel):
    """``scores[i]`` belongs to ``candidates[i]``; ``order`` lists indices, best first."""

    request_id: str
    surface: str
    expert: str = Field(examples=["action-ranker@3"])
    foundation_version: str | None = Field(examples=["core@7"])
    snapshots: dict[str, int] = Field(
        examples=[{"core@7/user": 3, "core@7/item": 5}],
        description="which snapshots were read, of an expert on user and item vectors; empty for the others",
    )
    served_at: datetime
    scores: list[float]
    order: list[int]


class Endpoints(WireModel):
    """Where the parts of this platform answer."""

    registry: str
    store: str
    inference: str
    version: str
