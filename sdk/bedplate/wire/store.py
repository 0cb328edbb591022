"""Documents of the store: spaces, lookup, search, events, timelines, outcomes, training sets, jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from bedplate.wire.common import Key, Name, Time, WireModel
from bedplate.wire.filters import Filter
from bedplate.wire.registry import Dtype, KeyType, Metric, NeCost
from bedplate.wire.shards import SHARDS_MAX, ShardsAnswered

IndexKind = Literal["auto", "flat", "hnsw", "ivf"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
AnyKey = int | str


class Space(WireModel):
    """One embedding output of one version and the snapshot its readers see."""

    reference: str = Field(examples=["core@7/item"])
    foundation: str
    version: int
    space: str
    dim: int
    dtype: Dtype
    metric: Metric
    key_type: KeyType
    attributes: dict[str, str] = Field(
        default={}, description="what searches may filter by, and its type", examples=[{"year": "int64"}]
    )
    snapshot: int | None = Field(description="the published snapshot's number; None: nothing published yet")
    rows: int
    pending_rows: int = Field(description="upserted and deleted rows not yet compacted into a snapshot")
    updated_at: datetime


class Compression(WireModel):
    """What compression cost, measured on a sample of the rows as they were embedded."""

    rows: int = Field(description="sampled rows")
    relative_error_mean: float = Field(description="of the Euclidean distance moved, over the length")
    relative_error_p99: float
    recall_at_10: float | None = Field(
        description="of an exact search of the compressed sample, against the uncompressed one"
    )


class Snapshot(WireModel):
    reference: str
    snapshot: int
    digest: str = Field(description="SHA-256 over its segments' and index's digests")
    rows: int
    bytes: int
    index_kind: str
    index_parameters: dict[str, Any]
    recall_at_10: float | None = Field(description="measured against exact search on held-back rows")
    recall_at_100: float | None = Field(default=None, description="the same for the nearest hundred")
    compression: Compression | None = Field(
        default=None,
        description="of int8 and int4 spaces, from the last embedding; None: not compressed or not embedded",
    )
    shards: int = Field(default=1, description="parts that different store processes may serve")
    job: str | None
    published_at: datetime


class StorageCost(WireModel):
    """What storing the vectors of a space as one dtype takes and costs, as far as it was measured."""

    dtype: Dtype
    row_bytes: int = Field(description="of a vector, without its key")
    space: str | None = Field(
        description="one that is stored so: this, or the newest of a version with the same weights"
    )
    snapshot: int | None = Field(description="its published snapshot")
    rows: int | None
    bytes: int | None = Field(description="of that snapshot, its index included")
    compression: Compression | None = Field(description="error and recall, of int8 and int4")
    ne: list[NeCost] = Field(description="of every expert that was evaluated on this dtype and a finer one")
    unmeasured: list[str] = Field(description="what is not known yet, and how to measure it")


class SpaceFile(WireModel):
    """A file of a segment; ``url`` is signed and needs no token."""

    name: str = Field(examples=["vectors"], description="readers pass over names they do not know")
    bytes: int
    sha256: str
    url: str
    path: str | None = Field(
        default=None,
        description="where the file lies, for who sees the same file system; None: elsewhere, or not told",
    )


class SpaceSegment(WireModel):
    digest: str
    rows: int
    tombstones: int
    files: list[SpaceFile]


class SpaceFiles(WireModel):
    """One state of a space: its segments, oldest first; of each key the newest row or tombstone counts."""

    reference: str = Field(examples=["core@7/item"])
    snapshot: int = Field(description="0: nothing is published, only writes")
    sequence: int = Field(description="every write up to it is in the segments, none after it")
    dim: int
    dtype: Dtype
    key_type: KeyType
    segments: list[SpaceSegment]


class OpenReader(WireModel):
    """A process that has the space open. A killed process is listed for some seconds more."""

    reader: str = Field(description="id of the process, made when it started")
    service: str = Field(examples=["api"])
    process: str = Field(description="host name and process id")
    url: str
    snapshot: int = Field(description="the one it answers from; 0: it has writes only")
    sequence: int = Field(description="it answers with every write up to this one, or a later one")
    newest: bool = Field(description="whether that snapshot is the published one")
    in_use: bool = Field(description="false: opened ahead, or not asked for lately")
    node: str | None = Field(default=None, description="its name, of a store node")
    shards: list[int] = Field(default=[], description="of a store node: what it has of that snapshot")
    seen_at: datetime


After = Annotated[
    str | None,
    Field(max_length=512, description="token of a write that the answer must see, as x-bedplate-after"),
]


class LookupRequest(WireModel):
    keys: list[AnyKey] = Field(min_length=1, max_length=10_000, examples=[[1193, 661, 914]])
    after: After = None


class LookupAnswer(WireModel):
    """``vectors[i]`` belongs to ``keys[i]``; where ``found[i]`` is not true it is all zeros.

    ``found[i]`` is null where the shard of ``keys[i]`` did not answer; ``shards`` is there where store nodes
    were asked.
    """

    reference: str
    snapshot: int
    dim: int
    found: list[bool | None]
    vectors: list[list[float]]
    shards: ShardsAnswered | None = None


class SearchRequest(WireModel):
    """Exactly one of ``vectors`` and ``keys``; a key's own row is left out of its answer."""

    vectors: list[list[float]] | None = None
    keys: list[AnyKey] | None = None
    k: int = Field(default=10, ge=1, le=1000)
    ef: int | None = Field(
        default=None, ge=1, le=4096, description="search effort of the index; None: as tuned"
    )
    recall: float | None = Field(
        default=None, gt=0, le=1, description="the effort that reached it when the index was tuned"
    )
    filter: Filter | None = Field(default=None, description="only rows whose attributes pass")
    after: After = None


class SearchHit(WireModel):
    key: AnyKey
    score: float


class SearchAnswer(WireModel):
    """One list of hits for each query; ``found`` tells, for a search by key, which keys exist."""

    reference: str
    snapshot: int
    found: list[bool | None]
    hits: list[list[SearchHit]]
    shards: ShardsAnswered | None = None


AttributeValue = StrictBool | StrictInt | StrictFloat | StrictStr | list[StrictStr] | None


class UpsertRequest(WireModel):
    """``attributes``: one value, or null, for each key. A row is replaced as a whole, its attributes too."""

    keys: list[AnyKey]
    vectors: list[list[float]]
    attributes: dict[str, list[AttributeValue]] | None = None


class DeleteRequest(WireModel):
    keys: list[AnyKey]


class WriteAnswer(WireModel):
    """The write is durable, and every reader sees it within one second, if the machine lets readers run; who
    sends ``token`` along sees it at once. ``sequence`` counts the writes.
    """

    reference: str
    rows: int
    sequence: int
    token: str = Field(
        description="opaque; a lookup or search that carries it as x-bedplate-after sees this write"
    )


class IndexSpecification(WireModel):
    kind: IndexKind = "auto"
    recall_target: float = Field(default=0.95, gt=0, le=1)
    shards: int = Field(
        default=1,
        ge=1,
        le=SHARDS_MAX,
        description="parts of the snapshot that different store processes may serve",
    )


class EmbedRequest(WireModel):
    """Embed entities with the version, index the vectors, measure the recall, publish the snapshot."""

    as_of: Time | None = Field(default=None, description="users: only events before this time; None: now")
    partitions: int | None = Field(
        default=None, ge=1, le=4096, description="into how many the embedding and the adding to lists are cut"
    )
    index: IndexSpecification = IndexSpecification()
    attributes: tuple[str, ...] | None = Field(
        default=None,
        max_length=64,
        description="items: features of the catalogue that searches may filter by; null: those that the "
        "space has, or else had in the version before",
        examples=[["genres", "year"]],
    )
    idempotency_key: str | None = Field(default=None, max_length=128)


class EmbedAnswer(WireModel):
    job: str


class Event(WireModel):
    """One thing a user did. ``features`` are the item's, as known then."""

    user: Key
    item: Key
    action: str = Field(min_length=1, max_length=64, examples=["like"])
    surface: Name
    event_time: Time
    label: float | None = None
    features: dict[str, Any] | None = None


class EventBatch(WireModel):
    events: list[Event]


class EventsAccepted(WireModel):
    accepted: int
    sequence: int = Field(description="the ingest sequence of the last event of the batch")


class Item(WireModel):
    """A catalogue entry: the item's features, e.g. ``{"genres": ["Action"], "year": 1995}``."""

    key: Key
    features: dict[str, Any] = Field(default_factory=dict)


class ItemBatch(WireModel):
    items: list[Item]


class ItemsAccepted(WireModel):
    accepted: int


class Timeline(WireModel):
    """A user's events strictly before ``at``, oldest first."""

    user: str
    at: datetime
    events: list[Event]


class Outcome(WireModel):
    """What came of an impression; the label of one task."""

    request_id: str = Field(min_length=1, max_length=64)
    item: Key
    task: Name = "label"
    label: float
    outcome_time: Time


class OutcomeBatch(WireModel):
    surface: Name
    outcomes: list[Outcome]


class OutcomesAccepted(WireModel):
    accepted: int
    duplicates: int = Field(
        description="the same outcome again; a different label for a known one is a conflict"
    )


class LogSealed(WireModel):
    """What of the impression log was sealed just now: ``segments`` with ``requests`` and their ``rows``."""

    segments: int
    requests: int
    rows: int


class TrainingSetCreate(WireModel):
    """A point-in-time join of impressions, logged TAE and outcomes, pinned to foundation versions."""

    name: Name
    surface: Name
    versions: list[str] = Field(min_length=1, examples=[["core@1", "core@2"]])
    window_start: Time
    window_end: Time
    task: Name = "label"
    history_length: int = Field(
        default=16, ge=0, le=1024, description="same-surface events before each request"
    )
    attribution_end: Time | None = Field(default=None, description="outcomes up to this time; None: now")


class TrainingSet(TrainingSetCreate):
    id: str
    team: str
    state: Literal["building", "ready", "failed"]
    job: str
    rows: int | None = None
    requests: int | None = None
    unlabelled: int | None = Field(default=None, description="impressions left out: no outcome of the task")
    incomplete: int | None = Field(
        default=None, description="impressions left out: logged without the TAE of one of the versions"
    )
    bytes: int | None = None
    digest: str | None = None
    created_at: datetime


class TrainingSetFile(WireModel):
    """A part of a materialised training set; ``url`` is signed and needs no token."""

    name: str
    table: Literal["rows", "requests"]
    rows: int
    bytes: int
    sha256: str
    url: str
    path: str | None = Field(
        default=None,
        description="where the file lies, for who sees the same file system; None: elsewhere, or not told",
    )


class JobProgress(WireModel):
    stage: str
    done: int
    total: int
    unit: str = "rows"


class Job(WireModel):
    id: str
    kind: str = Field(examples=["embed"])
    subject: str = Field(examples=["core@7/item"])
    state: JobState
    team: str
    progress: list[JobProgress]
    attempts: int
    error: str | None = None
    result: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
