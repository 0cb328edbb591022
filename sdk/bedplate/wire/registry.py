"""Documents of the registry: teams, surfaces, foundations, versions, aliases, experts, evaluations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from bedplate.wire.common import Name, Sha256, Time, WireModel

Role = Literal["admin", "member"]
VersionState = Literal["draft", "ready", "retired"]
Dtype = Literal["float32", "float16", "int8", "int4"]
Metric = Literal["inner_product", "l2"]
KeyType = Literal["int64", "string"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class TeamCreate(WireModel):
    name: Name
    description: str = ""


class Team(TeamCreate):
    created_at: datetime


class TokenCreate(WireModel):
    description: str = ""
    role: Role = "member"


class Token(WireModel):
    id: int
    team: str
    role: Role
    description: str
    created_at: datetime
    revoked_at: datetime | None = None


class TokenIssued(Token):
    """The only answer that ever holds the secret; the registry keeps its hash."""

    secret: str


class SurfaceCreate(WireModel):
    name: Name
    team: Name
    description: str = ""


class Surface(SurfaceCreate):
    created_at: datetime


class FoundationCreate(WireModel):
    name: Name
    team: Name
    description: str = ""


class Foundation(FoundationCreate):
    created_at: datetime
    latest_version: int | None = None


class SpaceSignature(WireModel):
    """One embedding output of a version."""

    dim: int = Field(ge=1, le=65536)
    dtype: Dtype = "float16"
    metric: Metric = "inner_product"
    entity: Literal["item", "user"] | None = Field(
        default=None, description="what embed jobs walk; None: made per request (TAE), never indexed"
    )
    key_type: KeyType = "string"


class TensorSignature(WireModel):
    dtype: str = Field(examples=["F32"], description="the safetensors dtype name")
    shape: list[int]


class Signature(WireModel):
    """What a checkpoint takes and gives; finalise checks ``tensors`` against the safetensors header."""

    architecture: str
    inputs: dict[str, Any] = Field(default_factory=dict)
    tasks: list[str] = Field(default_factory=list)
    spaces: dict[Name, SpaceSignature] = Field(default_factory=dict)
    tensors: dict[str, TensorSignature]


class FileManifest(WireModel):
    """One file of a checkpoint as it will be uploaded: ``parts`` parts, numbered from 0, joined in order."""

    name: FileName
    sha256: Sha256
    bytes: int = Field(ge=0)
    parts: int = Field(ge=1, le=10_000, default=1)


class VersionCreate(WireModel):
    """A draft; upload every file's parts, then finalise."""

    signature: Signature
    files: list[FileManifest] = Field(min_length=1)
    parent: int | None = Field(default=None, description="the version this one was trained on from")
    training_window_start: Time | None = None
    training_window_end: Time | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    description: str = ""


class Version(VersionCreate):
    foundation: str
    version: int
    reference: str = Field(examples=["core@7"])
    state: VersionState
    digest: str | None = Field(description="SHA-256 over the file manifest; None while a draft")
    created_at: datetime
    finalised_at: datetime | None = None
    aliases: list[str] = Field(default_factory=list)


class UploadStatus(WireModel):
    """Which parts of which file have arrived; an interrupted upload goes on from here."""

    received: dict[str, list[int]]


class AliasMove(WireModel):
    """Compare-and-swap: ``expected_version`` is what the caller believes it points at (None: not set yet).

    The processes that serve the alias's spaces open those of the new version first. ``force`` moves it at
    once; the first requests then wait until the new version is open.
    """

    version: int
    expected_version: int | None = None
    reason: str = ""
    wait_for_readers_seconds: float = Field(default=10.0, ge=0, le=30)
    force: bool = False


class Alias(WireModel):
    foundation: str
    alias: str
    version: int
    moved_at: datetime


class AliasChange(WireModel):
    alias: str
    from_version: int | None
    to_version: int
    reason: str
    moved_by: str
    moved_at: datetime


class ExpertCreate(WireModel):
    name: Name
    surface: Name
    description: str = ""


class Expert(ExpertCreate):
    created_at: datetime
    latest_version: int | None = None
    serving_version: int | None = None


class ExpertVersionCreate(WireModel):
    """Pinned to one foundation version and space; ``pinned_version`` None: a one-stage model without one."""

    signature: Signature
    files: list[FileManifest] = Field(min_length=1)
    pinned_version: str | None = Field(default=None, examples=["core@7"])
    pinned_space: str | None = Field(default=None, examples=["tae"])
    training_set: str | None = Field(default=None, description="id of the training set it was trained on")
    metrics: dict[str, float] = Field(default_factory=dict)
    description: str = ""


class ExpertVersion(ExpertVersionCreate):
    expert: str
    surface: str
    version: int
    state: VersionState
    digest: str | None
    created_at: datetime
    finalised_at: datetime | None = None


class ServingMove(WireModel):
    """Which version of an expert answers ``/rank``; compare-and-swap like an alias."""

    version: int
    expected_version: int | None = None
    reason: str = ""


class SpaceRead(WireModel):
    """A space whose vectors a model read when it was evaluated."""

    space: str = Field(examples=["core@7/item"], description="its version by number")
    storage: Dtype | None = Field(
        default=None,
        description="as what the vectors were stored; null: as the space stores them. Another dtype "
        "where they came from the model itself, or were compressed off line to try it",
    )
    snapshot: int | None = Field(default=None, ge=1, le=2**31 - 1)


class EvaluationCreate(WireModel):
    """What a model was measured to be worth on a surface, on a window of the timeline."""

    subject: str = Field(examples=["core@2", "action-ranker@3"], description="foundation or expert version")
    surface: Name
    task: str = "label"
    window_start: Time
    window_end: Time
    rows: int = Field(ge=1)
    metrics: dict[str, float] = Field(examples=[{"ne": 0.87, "auc": 0.75}])
    variant: str = Field(
        default="",
        examples=["tae"],
        description="what the model reads, and how; how that is stored belongs to ``reads``",
    )
    seed: int | None = None
    reads: list[SpaceRead] = Field(
        default=[],
        max_length=16,
        description="the spaces it read: from these follows what a storage costs in NE",
    )


class Evaluation(EvaluationCreate):
    id: int
    team: str
    created_at: datetime


class TransferRatio(WireModel):
    """How much of a foundation's gain arrives in one expert: (NE of the expert on ``from_version`` - on
    ``to_version``) / (NE of ``from_version`` - of ``to_version``). NE are means over seeds; the expert's over
    those that both sides have.
    """

    surface: str
    task: str
    from_version: str = Field(examples=["core@1"])
    to_version: str = Field(examples=["core@2"])
    expert: str = Field(examples=["action-ranker"])
    variant: str = Field(examples=["tae"])
    window_start: datetime
    window_end: datetime
    foundation_ne_from: float
    foundation_ne_to: float
    expert_ne_from: float
    expert_ne_to: float
    seeds: int = Field(description="pairs of expert evaluations with the same seed")
    ratio: float | None = Field(
        description="None where the foundation's NE did not get better by 0.05 %; see ``reason``"
    )
    ratio_std: float | None = Field(description="sample standard deviation over seeds; None with one seed")
    reason: str | None = None


class NeCost(WireModel):
    """NE of an expert that reads vectors of one storage, minus that of the same expert on another.

    NE are means over the seeds that both sides have.
    """

    storage: Dtype = Field(examples=["int8"])
    against: Dtype = Field(description="float32 where it was evaluated, else float16")
    surface: str
    task: str
    expert: str = Field(examples=["action-ranker"])
    variant: str
    spaces: list[str] = Field(examples=[["item", "user"]], description="what it read, all of that storage")
    window_start: datetime
    window_end: datetime
    ne: float
    ne_against: float
    cost: float = Field(description="ne - ne_against; above 0: the storage costs")
    cost_std: float | None = Field(description="sample standard deviation over seeds; None with one seed")
    seeds: int = Field(description="pairs of evaluations with the same seed")


class WhoAmI(WireModel):
    """The team behind the token that was sent."""

    team: str
    role: Role
