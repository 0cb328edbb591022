"""Evaluations: what foundation and expert versions were measured to be worth on a surface and window."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.sql import ColumnElement

from bedplate.errors import InvalidRequest, NotFound
from bedplate.references import SpaceReference, VersionReference
from bedplate.wire.registry import Evaluation, EvaluationCreate, NeCost, SpaceRead, TransferRatio, Version
from bedplate_registry import expert_versions, versions
from bedplate_registry.checks import check_int64, check_metrics, check_text, fetch
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.storage_costs import ne_costs
from bedplate_registry.tables import EvaluationReadRow, EvaluationRow, FoundationRow, SurfaceRow, TeamRow
from bedplate_registry.transfer_ratios import transfer_ratios

__all__ = ["list", "ne_of_storages", "record", "transfer_between", "transfer_ratios"]


def record(session: WriteSession, document: EvaluationCreate, team: str, now: datetime) -> Evaluation:
    """Keep a measurement; ``team`` is who made it.

    Raises:
        NotFound: there is no such subject, surface, team or space.
        InvalidRequest: the subject or a space that was read is not of a numbered version, a space is named
            twice, the window is empty, a metric is not finite.
    """
    check_metrics(document.metrics)
    check_text(task=document.task, variant=document.variant)
    check_int64(rows=document.rows, seed=document.seed)
    if document.window_end <= document.window_start:
        raise InvalidRequest("The window is empty: window_end has to be after window_start.")
    fetch(session, TeamRow, team, f"team {team!r}")
    fetch(session, SurfaceRow, document.surface, f"surface {document.surface!r}: create it first")
    _check_subject(session, VersionReference.parse(document.subject))
    reads = _reads(session, document.reads)
    row = EvaluationRow(team=team, created_at=now, **document.model_dump(exclude={"reads"}))
    session.add(row)
    session.flush()
    session.add_all(EvaluationReadRow(evaluation_id=row.id, **read.model_dump()) for read in reads)
    session.flush()
    return _document(row, reads)


def list(
    session: ReadSession, *, subject: str | None = None, surface: str | None = None, task: str | None = None
) -> builtins.list[Evaluation]:
    """Evaluations, oldest first, of those that are named."""
    check_text(subject=subject, surface=surface, task=task)
    wanted = ((EvaluationRow.subject, subject), (EvaluationRow.surface, surface), (EvaluationRow.task, task))
    return _documents(session, *(column == value for column, value in wanted if value is not None))


def transfer_between(
    session: ReadSession, surface: str, from_version: str, to_version: str, task: str = "label"
) -> builtins.list[TransferRatio]:
    """The transfer ratios of a surface's experts between two foundation versions (numbers or aliases).

    Raises:
        NotFound: there is no such surface or version, or not all the evaluations were recorded that it takes.
    """
    fetch(session, SurfaceRow, surface, f"surface {surface!r}")
    old = versions.resolve(session, VersionReference.parse(from_version)).reference
    new = versions.resolve(session, VersionReference.parse(to_version)).reference
    found = transfer_ratios(
        list(session, surface=surface, task=task),
        expert_versions.pins(session, surface),
        from_version=old,
        to_version=new,
    )
    if not found:
        raise NotFound(
            f"No transfer ratio of {old} and {new} on {surface!r}: it takes, for the same window and task "
            f"{task!r}, evaluations with the metric 'ne' of {old}, of {new}, and of one expert's versions "
            "pinned to each of them with the same variant and seed."
        )
    return found


def ne_of_storages(session: ReadSession, version: Version, space: str) -> builtins.list[NeCost]:
    """What the storages of a space cost in NE the experts that were evaluated on it, see :func:`ne_costs`.

    Versions of the same weights count as one: their vectors differ by how they are stored alone.
    """
    alike = [one.reference for one in versions.of_same_weights(session, version)]
    references = [f"{reference}/{space}" for reference in alike]
    reading = select(EvaluationReadRow.evaluation_id).where(EvaluationReadRow.space.in_(references))
    return ne_costs(_documents(session, EvaluationRow.id.in_(reading)), alike)


def _check_subject(session: ReadSession, reference: VersionReference) -> None:
    if reference.number is None:
        raise InvalidRequest(
            f"{reference} may move; name the version that was measured by number, e.g. core@2."
        )
    if session.get(FoundationRow, reference.foundation) is not None:
        versions.get(session, reference.foundation, reference.number)
    else:
        expert_versions.get(session, reference.foundation, reference.number)


def _reads(session: ReadSession, given: builtins.list[SpaceRead]) -> builtins.list[SpaceRead]:
    """With the storage that was meant where none was named, by the space's name."""
    found: dict[str, SpaceRead] = {}
    for read in given:
        reference = SpaceReference.parse(read.space)
        if reference.version.number is None:
            raise InvalidRequest(f"{read.space} may move; name what was read by number, e.g. core@2/item.")
        version = versions.resolve(session, reference.version)
        signature = version.signature.spaces.get(reference.space)
        if signature is None:
            known = ", ".join(sorted(version.signature.spaces))
            raise NotFound(f"{version.reference} has no space {reference.space!r}; it has {known}.")
        name = f"{version.reference}/{reference.space}"
        if name in found:
            raise InvalidRequest(f"{name} is named twice in reads; name each space once.")
        found[name] = SpaceRead(space=name, storage=read.storage or signature.dtype, snapshot=read.snapshot)
    return [found[name] for name in sorted(found)]


def _documents(session: ReadSession, *conditions: ColumnElement[bool]) -> builtins.list[Evaluation]:
    reads: dict[int, builtins.list[SpaceRead]] = {}
    query = select(EvaluationReadRow).join(EvaluationRow, EvaluationRow.id == EvaluationReadRow.evaluation_id)
    for read in session.scalars(query.where(*conditions).order_by(EvaluationReadRow.space)):
        document = SpaceRead.model_validate({name: getattr(read, name) for name in SpaceRead.model_fields})
        reads.setdefault(read.evaluation_id, []).append(document)
    rows = session.scalars(select(EvaluationRow).where(*conditions).order_by(EvaluationRow.id))
    return [_document(row, reads.get(row.id, [])) for row in rows]


def _document(row: EvaluationRow, reads: builtins.list[SpaceRead]) -> Evaluation:
    own = {name: getattr(row, name) for name in Evaluation.model_fields if name != "reads"}
    return Evaluation.model_validate({**own, "reads": reads})
