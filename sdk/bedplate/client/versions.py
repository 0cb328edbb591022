"""Versions of foundations and of experts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from bedplate.client.answers import build
from bedplate.client.checkpoints import (
    download,
    finalise,
    read_checkpoint,
    upload,
    version_path,
)
from bedplate.client.downloads import Progress
from bedplate.client.effects import Steps
from bedplate.client.requests import Listing, get, get_list, parameters, path, send
from bedplate.client.steps import Namespace, RunnerT, blocking, operation
from bedplate.errors import InvalidRequest
from bedplate.references import VersionReference
from bedplate.wire.registry import (
    Expert,
    ExpertCreate,
    ExpertVersion,
    ExpertVersionCreate,
    ServingMove,
    UploadStatus,
    Version,
    VersionCreate,
)


def _foundation_version(reference: str) -> str:
    parsed = VersionReference.parse(reference)
    return version_path("foundations", parsed.foundation, parsed.selector)


class Versions(Namespace[RunnerT]):
    """Checkpoints of foundations, immutable once published: ``core@7``, ``core@production``."""

    @operation
    def publish(
        self,
        foundation: str,
        directory: str | Path,
        *,
        parent: int | None = None,
        training_window: tuple[datetime, datetime] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
        progress: Progress | None = None,
    ) -> Steps[Version]:
        """Upload a checkpoint directory in parts of 16 MiB and finalise it as the next version.

        An interrupted publication goes on where it stopped: a draft of the same document is taken up again
        instead of making another.

        Args:
            directory: holds ``signature.json`` and every file of the checkpoint.
            parent: the version this one was trained on from.
            progress: called with (file name, bytes done, bytes in all) after each part.

        Raises:
            CheckpointInvalid, DigestMismatch, SignatureMismatch, Forbidden, NotFound (the foundation).
        """
        checkpoint = yield from blocking(lambda: read_checkpoint(Path(directory)))
        start, end = training_window or (None, None)
        body = build(
            VersionCreate,
            signature=checkpoint.signature,
            files=checkpoint.files,
            parent=parent,
            training_window_start=start,
            training_window_end=end,
            metrics=dict(metrics or {}),
            description=description,
        )
        url = path("foundations", foundation, "versions")
        draft = _same_draft((yield from get_list(url, Version)), body)
        if draft is None:
            draft = yield from send("POST", url, body, Version)
        base = version_path("foundations", foundation, draft.version)
        yield from upload(base, checkpoint, progress)
        return (yield from finalise(base, Version))

    @operation
    def get(self, reference: str) -> Steps[Version]:
        """Raises NotFound."""
        return get(_foundation_version(reference), Version)

    @operation
    def list(self, foundation: str) -> Steps[Listing[Version]]:
        """The foundation's versions, drafts too, by number."""
        return get_list(path("foundations", foundation, "versions"), Version)

    @operation
    def retire(self, reference: str) -> Steps[Version]:
        """Take a version out of use. Raises Conflict while an alias or an expert still points at it."""
        return send("POST", f"{_foundation_version(reference)}/retire", None, Version)

    @operation
    def upload_status(self, reference: str) -> Steps[UploadStatus]:
        """Which parts of a draft have arrived."""
        return get(f"{_foundation_version(reference)}/upload", UploadStatus)

    @operation
    def download(
        self, reference: str, directory: str | Path, *, progress: Progress | None = None
    ) -> Steps[Version]:
        """Fetch every file of a version into ``directory`` and verify its SHA-256.

        An alias is resolved once, so that all files are of one version. Files that are there already and have
        the right digest are not fetched again.

        Raises:
            DigestMismatch: a file's bytes are not those the registry announced; the file is not written.
        """
        version = yield from get(_foundation_version(reference), Version)
        base = version_path("foundations", version.foundation, version.version)
        yield from download(base, version.files, Path(directory), progress)
        return version


def _same_draft(versions: list[Version], body: VersionCreate) -> Version | None:
    wanted = body.model_dump()
    for version in reversed(versions):
        if version.state == "draft" and version.model_dump(include=set(wanted)) == wanted:
            return version
    return None


class Experts(Namespace[RunnerT]):
    """Surface models and their versions, each pinned to one foundation version and space."""

    @operation
    def create(self, name: str, surface: str, description: str = "") -> Steps[Expert]:
        """Create an expert of a surface. Raises AlreadyExists, Forbidden, NotFound (the surface)."""
        body = build(ExpertCreate, name=name, surface=surface, description=description)
        return send("POST", path("experts"), body, Expert)

    @operation
    def get(self, name: str) -> Steps[Expert]:
        """Raises NotFound."""
        return get(path("experts", name), Expert)

    @operation
    def list(self, surface: str | None = None) -> Steps[Listing[Expert]]:
        """Every expert, of one surface if given."""
        return get_list(path("experts"), Expert, parameters(surface=surface))

    @operation
    def publish(
        self,
        expert: str,
        directory: str | Path,
        *,
        pinned_version: str | None = None,
        pinned_space: str | None = None,
        training_set: str | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
        progress: Progress | None = None,
    ) -> Steps[ExpertVersion]:
        """Upload a checkpoint directory and finalise it as the expert's next version; resumes likewise.

        Args:
            pinned_version: ``core@7``; None for a one-stage model without a foundation.
            pinned_space: the space it reads, e.g. ``tae``.
            training_set: id of the training set it was trained on.

        Raises:
            CheckpointInvalid, DigestMismatch, SignatureMismatch, VersionNotReady (the pinned one), Forbidden.
        """
        checkpoint = yield from blocking(lambda: read_checkpoint(Path(directory)))
        body = build(
            ExpertVersionCreate,
            signature=checkpoint.signature,
            files=checkpoint.files,
            pinned_version=pinned_version,
            pinned_space=pinned_space,
            training_set=training_set,
            metrics=dict(metrics or {}),
            description=description,
        )
        url = path("experts", expert, "versions")
        draft = _same_expert_draft((yield from get_list(url, ExpertVersion)), body)
        if draft is None:
            draft = yield from send("POST", url, body, ExpertVersion)
        base = version_path("experts", expert, draft.version)
        yield from upload(base, checkpoint, progress)
        return (yield from finalise(base, ExpertVersion))

    @operation
    def versions(self, expert: str) -> Steps[Listing[ExpertVersion]]:
        """The expert's versions, drafts too, by number."""
        return get_list(path("experts", expert, "versions"), ExpertVersion)

    @operation
    def get_version(self, reference: str) -> Steps[ExpertVersion]:
        """One version by reference, e.g. ``action-ranker@3``. Raises NotFound."""
        return get(_expert_version(reference), ExpertVersion)

    @operation
    def download(
        self, reference: str, directory: str | Path, *, progress: Progress | None = None
    ) -> Steps[ExpertVersion]:
        """Fetch every file of an expert's version into ``directory``; verified like a foundation's."""
        version = yield from get(_expert_version(reference), ExpertVersion)
        base = version_path("experts", version.expert, version.version)
        yield from download(base, version.files, Path(directory), progress)
        return version

    @operation
    def serve(
        self, expert: str, version: int, *, expected: int | None = None, reason: str = ""
    ) -> Steps[Expert]:
        """Let ``version`` answer ``/rank`` if ``expected`` (None: none) still does. Never retried.

        Raises:
            AliasMoved: another version serves meanwhile.
            VersionNotReady: the version is not finalised.
        """
        body = build(ServingMove, version=version, expected_version=expected, reason=reason)
        return send("PUT", path("experts", expert, "serving"), body, Expert)


def _expert_version(reference: str) -> str:
    parsed = VersionReference.parse(reference)
    if parsed.number is None:
        raise InvalidRequest(
            f"{reference!r}: experts have no aliases; write a version number, e.g. ranker@3."
        )
    return version_path("experts", parsed.foundation, parsed.number)


def _same_expert_draft(versions: list[ExpertVersion], body: ExpertVersionCreate) -> ExpertVersion | None:
    wanted = body.model_dump()
    for version in reversed(versions):
        if version.state == "draft" and version.model_dump(include=set(wanted)) == wanted:
            return version
    return None
