"""The errors of Bedplate, shared by the services that raise them and the SDK that hands them to its callers.

Every error has a stable ``code``; over HTTP it travels as an RFC 9457 problem document
(``application/problem+json``) with that code, and the SDK turns it back into the class below.

    BedplateError
    ├── InvalidRequest        malformed input; the caller must change what it sends
    │   ├── EmptyBatch, BatchTooLarge, DimensionMismatch, NonFiniteVectors, KeyTypeMismatch
    │   ├── EventInFuture, MethodNotAllowed, RangeNotSatisfiable
    │   └── CheckpointInvalid
    │       └── DigestMismatch, SignatureMismatch
    ├── Unauthenticated, Forbidden
    ├── NotFound
    ├── Conflict              well-formed, but the state of the platform says no
    │   ├── AlreadyExists, AliasMoved, VersionImmutable, VersionNotReady, SpaceNotReady,
    │   │   ReadersNotReady, EventsOutOfOrder, LeaseLost, SnapshotMoved, SnapshotGone, ShardMoved,
    │   │   WriteTokenMismatch, JobFailed
    ├── UnsupportedMediaType, NotAcceptable
    ├── Unavailable           try again later; says what is missing
    │   └── TooManyPendingWrites, ShardsUnanswered
    ├── StorageFull           a disk or bucket has no room; nothing was written
    └── InternalError
        └── ObjectDamaged     stored bytes no longer have their digest; they are not answered
"""

from __future__ import annotations

from typing import Any, ClassVar


class BedplateError(Exception):
    """Base of every error Bedplate raises on purpose.

    Attributes:
        code: stable machine-readable name, e.g. ``alias_moved``.
        title: one line that is the same for every error of this code.
        detail: what was wrong this time and what would mend it.
        context: further JSON-serialisable members of the problem document.
        request_id: set by the SDK from the answer's ``x-request-id``.
    """

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **context: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.context = context
        self.request_id: str | None = None


class InternalError(BedplateError):
    """A defect in the platform; the request id finds it in the logs."""


class ObjectDamaged(InternalError):
    code = "object_damaged"
    title = "A stored object is damaged"


class InvalidRequest(BedplateError):
    code = "invalid_request"
    title = "The request is malformed"


class EmptyBatch(InvalidRequest):
    code = "empty_batch"
    title = "The batch is empty"


class BatchTooLarge(InvalidRequest):
    code = "batch_too_large"
    title = "The batch is too large"


class DimensionMismatch(InvalidRequest):
    code = "dimension_mismatch"
    title = "The vectors have the wrong dimension"


class NonFiniteVectors(InvalidRequest):
    code = "non_finite_vectors"
    title = "The vectors hold NaN or infinite values"


class KeyTypeMismatch(InvalidRequest):
    code = "key_type_mismatch"
    title = "The keys are of the wrong type"


class EventInFuture(InvalidRequest):
    code = "event_in_future"
    title = "An event lies in the future"


class MethodNotAllowed(InvalidRequest):
    code = "method_not_allowed"
    title = "The route does not take this method"


class RangeNotSatisfiable(InvalidRequest):
    code = "range_not_satisfiable"
    title = "The range begins behind the end"


class CheckpointInvalid(InvalidRequest):
    code = "checkpoint_invalid"
    title = "The checkpoint is not acceptable"


class DigestMismatch(CheckpointInvalid):
    code = "digest_mismatch"
    title = "The uploaded bytes do not have the announced digest"


class SignatureMismatch(CheckpointInvalid):
    code = "signature_mismatch"
    title = "The checkpoint does not match its signature"


class Unauthenticated(BedplateError):
    code = "unauthenticated"
    title = "A valid token is needed"


class Forbidden(BedplateError):
    code = "forbidden"
    title = "The token's team does not own this"


class NotFound(BedplateError):
    code = "not_found"
    title = "There is no such thing"


class Conflict(BedplateError):
    code = "conflict"
    title = "The request conflicts with the present state"


class AlreadyExists(Conflict):
    code = "already_exists"
    title = "It exists already"


class AliasMoved(Conflict):
    code = "alias_moved"
    title = "The alias was moved by somebody else meanwhile"


class SnapshotMoved(Conflict):
    code = "snapshot_moved"
    title = "Another snapshot was published meanwhile"


class SnapshotGone(Conflict):
    code = "snapshot_gone"
    title = "The snapshot was superseded and collected"


class ShardMoved(Conflict):
    code = "shard_moved"
    title = "The shard was moved by somebody else meanwhile"


class VersionImmutable(Conflict):
    code = "version_immutable"
    title = "A finalised version cannot change"


class VersionNotReady(Conflict):
    code = "version_not_ready"
    title = "The version is not finalised"


class SpaceNotReady(Conflict):
    code = "space_not_ready"
    title = "The space has no published snapshot"


class ReadersNotReady(Conflict):
    code = "readers_not_ready"
    title = "Readers do not have the version open yet"


class EventsOutOfOrder(Conflict):
    code = "events_out_of_order"
    title = "The events are older than what was accepted already"


class WriteTokenMismatch(Conflict):
    code = "write_token_mismatch"
    title = "The token is of no write to this space"


class LeaseLost(Conflict):
    code = "lease_lost"
    title = "The lease passed to another worker"


class JobFailed(Conflict):
    code = "job_failed"
    title = "The job failed or was cancelled"


class UnsupportedMediaType(BedplateError):
    code = "unsupported_media_type"
    title = "The request's media type is not read here"


class NotAcceptable(BedplateError):
    code = "not_acceptable"
    title = "None of the accepted media types can be answered"


class Unavailable(BedplateError):
    code = "unavailable"
    title = "A part of the platform cannot be reached"


class TooManyPendingWrites(Unavailable):
    code = "too_many_pending_writes"
    title = "Compaction is behind the writes"


class ShardsUnanswered(Unavailable):
    code = "shards_unanswered"
    title = "Some shards did not answer"


class StorageFull(BedplateError):
    code = "storage_full"
    title = "There is no room left to write"


def _classes(root: type[BedplateError]) -> dict[str, type[BedplateError]]:
    found: dict[str, type[BedplateError]] = {}
    for child in root.__subclasses__():
        found[child.code] = child
        found.update(_classes(child))
    return found


ERRORS_BY_CODE: dict[str, type[BedplateError]] = _classes(BedplateError)
"""Every error class by its code."""


def error_from_problem(problem: dict[str, Any], *, request_id: str | None = None) -> BedplateError:
    """Rebuild the exception that a problem document describes; unknown codes become ``BedplateError``."""
    members = dict(problem)
    code = members.pop("code", "internal_error")
    detail = members.pop("detail", None) or members.get("title", code)
    for known in ("type", "title", "status", "instance", "request_id"):
        members.pop(known, None)
    error = ERRORS_BY_CODE.get(code, BedplateError)(detail, **members)
    error.request_id = request_id or problem.get("request_id")
    return error
