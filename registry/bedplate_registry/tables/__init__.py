"""Every table of the registry; importing this fills ``Base.metadata``."""

from bedplate_registry.tables.base import Base
from bedplate_registry.tables.checkpoints import CheckpointRow, UploadPartRow
from bedplate_registry.tables.experts import (
    EvaluationReadRow,
    EvaluationRow,
    ExpertRow,
    ExpertVersionRow,
    ServingChangeRow,
    ServingRow,
)
from bedplate_registry.tables.foundations import AliasChangeRow, AliasRow, FoundationRow, VersionRow
from bedplate_registry.tables.organisation import SurfaceRow, TeamRow, TokenRow

__all__ = [
    "AliasChangeRow",
    "AliasRow",
    "Base",
    "CheckpointRow",
    "EvaluationReadRow",
    "EvaluationRow",
    "ExpertRow",
    "ExpertVersionRow",
    "FoundationRow",
    "ServingChangeRow",
    "ServingRow",
    "SurfaceRow",
    "TeamRow",
    "TokenRow",
    "UploadPartRow",
    "VersionRow",
]
