"""What the S3 SDK's errors mean: gone, refused for good, or a fault that may pass.

The SDK's own messages may name hosts, so they are only chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from bedplate.errors import StorageFull, Unavailable
from bedplate_store.objects.port import damaged, missing
from bedplate_store.objects.retries import Fault, FaultReason

_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity"})
_PASSING = frozenset(
    {
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "OperationAborted",
        # What we sent came changed or cut: sent again, it may come whole.
        "BadDigest",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
    }
)
_INSUFFICIENT_STORAGE = 507
_PASSING_STATUSES = frozenset({408, 409, 429})


class RangePastEnd(Exception):
    """The range begins behind the object's last byte."""


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Turn the SDK's errors into ours: :class:`Fault` for what may pass, the others for good."""
    try:
        yield
    except S3Error as error:
        raise _of_code(key, error.code, int(error.response.status)) from error
    except ServerError as error:
        raise _of_code(key, None, error.status_code) from error
    except InvalidResponseError as error:
        # The SDK tells the status in its message alone; its own answers are XML, so this is a proxy's.
        raise Fault("server_error", _out_of_order(key)) from error
    except ParseError as error:
        raise Fault("cut", _out_of_order(key)) from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            raise  # of this machine's disk, not of the store
        raise Fault(_reason(error), _unreachable(key)) from error


def refused(key: str, status: int, body: bytes) -> Exception:
    """What an answer means that the SDK has not seen: a :class:`Fault`, or an error for good."""
    code = _CODE.search(body)
    return _of_code(key, code[1].decode("ascii", "replace") if code else None, status)


def came_short(key: str, done: int, announced: int) -> Fault:
    return Fault(
        "cut",
        Unavailable(
            f"the object store sent {done} of {announced} bytes of {key!r}, again and again: look into its "
            "log, and at what lies between it and us."
        ),
    )


def came_slowly(key: str, done: int) -> Fault:
    return Fault(
        "slow",
        Unavailable(
            f"the object store sends {key!r} too slowly ({done} bytes came): look at its load and at the "
            "network."
        ),
    )


def came_wrong(key: str, expected: str, found: str) -> Fault:
    return Fault("digest", damaged(key, expected, found))


def _of_code(key: str, code: str | None, status: int) -> Exception:
    if code in _ABSENT:
        return missing(key)
    if code == "InvalidRange":
        return RangePastEnd()
    if code in _FULL or status == _INSUFFICIENT_STORAGE:
        return _full(key)
    if code in _PASSING or status >= 500 or status in _PASSING_STATUSES:
        return Fault("server_error", _out_of_order(key))
    return Unavailable(
        f"the object store refused {key!r} ({code or status}): check its credentials, bucket and region."
    )


def _reason(error: Exception) -> FaultReason:
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.NewConnectionError):
        return "unreachable"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "cut"
    return "unreachable"


def _unreachable(key: str) -> Unavailable:
    return Unavailable(
        f"the object store could not be reached for {key!r}: check its endpoint and that it is running."
    )


def _out_of_order(key: str) -> Unavailable:
    return Unavailable(
        f"the object store answers, but not as it should, for {key!r}: look into its log; it may be "
        "overloaded."
    )


def _full(key: str) -> StorageFull:
    return StorageFull(
        f"the object store has no room for {key!r}: give it more, or collect what nobody uses. Nothing was "
        "written; reads go on."
    )
