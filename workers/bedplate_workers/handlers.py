"""What a handler of one job kind's stage is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.database import WriteSession
from bedplate_store.indexes import CentroidSearch
from bedplate_store.leases import Claim
from bedplate_store.objects import ObjectStore
from bedplate_workers.checkpoints import Checkpoints
from bedplate_workers.clocks import Clock

if TYPE_CHECKING:
    # torch, 250 MB of it, stays out of the reconciler, which comes by here too.
    from bedplate_modeling.runtime import FoundationRuntime

Finish = Callable[[WriteSession], dict[str, Any]]
"""Writes what belongs to the partition's result, in the transaction that commits it; returns the result. It
does nothing else, because that transaction may be run again."""


@dataclass(frozen=True)
class Workplace:
    """What handlers work with; built once per process and passed in.

    Attributes:
        centroids: where rows are compared with the centroids of an index's lists; None: in the index.
    """

    registry: RegistryDatabase
    store: StoreDatabase
    objects: ObjectStore
    checkpoints: Checkpoints[FoundationRuntime]
    cache_dir: Path
    spool_dir: Path
    collect_grace_seconds: float
    now: Clock
    centroids: CentroidSearch | None = None

    def close(self) -> None:
        self.registry.close()
        self.store.close()


class Progress(Protocol):
    """Called between units of work with how many are done in all."""

    def __call__(self, done: int) -> None:
        """Raises LeaseLost when the lease passed on, Interrupted when this process must stop."""


class Handler(Protocol):
    """The slow part of a partition, outside any transaction.

    It may run twice, or beside a twin that lost its lease, so it leaves nothing behind but content-addressed
    objects; all else happens in the ``Finish`` it returns.
    """

    def __call__(self, workplace: Workplace, claim: Claim, progress: Progress, /) -> Finish: ...


Handlers = Mapping[tuple[str, str], Handler]
"""Handlers by (job kind, stage)."""


def result(document: dict[str, Any]) -> Finish:
    """A ``Finish`` with nothing to write besides the result."""

    def finish(_session: WriteSession) -> dict[str, Any]:
        return document

    return finish
