"""Evaluations: what foundation and expert versions were measured to be worth on a surface and window."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import select

from bedplate.errors import InvalidRequest, NotFound
from bedplate.references import VersionReference
from bedplate.wire.registry import Evaluation, EvaluationCreate, TransferRatio
from bedplate_registry import expert_versions, versions
from bedplate_registry.checks import check_int64, check_metrics, check_text, fetch
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import EvaluationRow, FoundationRow, SurfaceRow, TeamRow
from bedplate_registry.transfer_ratios import transfer_ratios

__all__ = ["list", "record", "transfer_between", "transfer_ratios"]


def record(session: WriteSession, document: EvaluationCreate, team: str, now: datetime) -> Evaluation:
    """Keep a measurement; ``team`` is who made it.

    Raises:
        NotFound: there is no such subject, surface or team.
        InvalidRequest: the subject is not a numbered version, the window is empty, a metric is not finite.
    """
    check_metrics(document.metrics)
    check_text(task=document.task, variant=document.variant)
    check_int64(rows=document.rows, seed=document.seed)
    if document.window_end <= document.window_start:
        raise InvalidRequest("The window is empty: window_end has to be after window_start.")
    fetch(session, TeamRow, team, f"team {team!r}")
    fetch(session, SurfaceRow, document.surface, f"surface {document.surface!r}: create it first")
    _check_subject(session, VersionReference.parse(document.subject))
    row = EvaluationRow(team=team, created_at=now, **document.model_dump())
    session.add(row)
    session.flush()
    return _document(row)


def list(
    session: ReadSession, *, subject: str | None = None, surface: str | None = None, task: str | None = None
) -> builtins.list[Evaluation]:
    """Evaluations, oldest first, of those that are named."""
    check_text(subject=subject, surface=surface, task=task)
    query = select(EvaluationRow).order_by(EvaluationRow.id)
    if subject is not None:
        query = query.where(EvaluationRow.subject == subject)
    if surface is not None:
        query = query.where(EvaluationRow.surface == surface)
    if task is not None:
        query = query.where(EvaluationRow.task == task)
    return [_document(row) for row in session.scalars(query)]


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


def _check_subject(session: ReadSession, reference: VersionReference) -> None:
    if reference.number is None:
        raise InvalidRequest(
            f"{reference} may move; name the version that was measured by number, e.g. core@2."
        )
    if session.get(FoundationRow, reference.foundation) is not None:
        versions.get(session, reference.foundation, reference.number)
    else:
        expert_versions.get(session, reference.foundation, reference.number)


def _document(row: EvaluationRow) -> Evaluation:
    return Evaluation.model_validate(
        {name: getattr(row, name) for name in Evaluation.model_fields},
    )
