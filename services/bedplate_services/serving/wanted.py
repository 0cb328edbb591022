"""What the registry wants served right now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bedplate_registry import aliases, expert_versions, experts, foundations, surfaces, versions
from bedplate_registry.checkpoint_cache import CheckpointFile
from bedplate_registry.database import Database, ReadSession


@dataclass(frozen=True)
class WantedModel:
    """A checkpoint to be loaded.

    Attributes:
        label: ``core@7`` or ``feed-ranker@3``.
        digest: of the checkpoint; a label never changes its digest.
        files: where its files lie.
    """

    label: str
    digest: str
    files: tuple[CheckpointFile, ...]


@dataclass(frozen=True)
class WantedExpert:
    """A serving expert version and what it is pinned to (None: a one-stage model)."""

    model: WantedModel
    name: str
    surface: str
    pinned: str | None


@dataclass(frozen=True)
class Wanted:
    """One consistent view of the registry.

    Attributes:
        foundations: the active versions, sorted by label.
        experts: the serving expert versions.
        aliases: ``core@production`` -> ``core@7``.
        owners: surface -> team.
    """

    foundations: tuple[WantedModel, ...]
    experts: tuple[WantedExpert, ...]
    aliases: Mapping[str, str]
    owners: Mapping[str, str]

    @property
    def labels(self) -> list[str]:
        return [model.label for model in self.models]

    @property
    def models(self) -> list[WantedModel]:
        return [*self.foundations, *(expert.model for expert in self.experts)]


def read_wanted(registry: Database) -> Wanted:
    """Ask the registry, in one transaction."""
    with registry.read() as session:
        return Wanted(
            foundations=_foundations(session),
            experts=_experts(session),
            aliases=_aliases(session),
            owners={surface.name: surface.team for surface in surfaces.list(session)},
        )


def _foundations(session: ReadSession) -> tuple[WantedModel, ...]:
    found = []
    for version in versions.active(session):
        files = tuple(
            CheckpointFile(*versions.file_object(session, version.foundation, version.version, file.name))
            for file in version.files
        )
        found.append(WantedModel(version.reference, version.digest or "", files))
    return tuple(found)


def _experts(session: ReadSession) -> tuple[WantedExpert, ...]:
    found = []
    for expert in experts.list(session):
        if expert.serving_version is None:
            continue
        version = expert_versions.get(session, expert.name, expert.serving_version)
        files = tuple(
            CheckpointFile(*expert_versions.file_object(session, expert.name, version.version, file.name))
            for file in version.files
        )
        model = WantedModel(f"{expert.name}@{version.version}", version.digest or "", files)
        found.append(WantedExpert(model, expert.name, expert.surface, version.pinned_version))
    return tuple(found)


def _aliases(session: ReadSession) -> dict[str, str]:
    return {
        f"{foundation.name}@{alias.alias}": f"{foundation.name}@{alias.version}"
        for foundation in foundations.list(session)
        for alias in aliases.list(session, foundation.name)
    }
