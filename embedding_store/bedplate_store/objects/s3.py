"""Objects in a bucket behind the S3 API, through the ``minio`` SDK."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from bedplate.errors import NotFound, Unavailable
from bedplate_store.objects.port import check_key, missing

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_STATUS_ABSENT_FAILED = 412
_STATUS_CONCURRENT = 409
_CHUNK_BYTES = 1 << 20
_CONDITIONAL_URL = timedelta(minutes=10)
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})


class S3ObjectStore:
    """An :class:`~bedplate_store.objects.ObjectStore` in ``bucket``, under ``prefix``.

    ``endpoint`` is ``http(s)://host:port``. Credentials None: anonymous access.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str = "",
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
    ) -> None:
        parsed = urllib3.util.parse_url(endpoint)
        self._pool = urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        self._client: Any = Minio(
            endpoint=parsed.netloc or endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=parsed.scheme == "https",
            # Named, so that the SDK need not ask the server for it before the first call.
            region=region or "us-east-1",
            http_client=self._pool,
        )
        self.bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def ensure_bucket(self) -> None:
        """Make the bucket where it is missing."""
        with _translated(self.bucket):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                self._client.make_bucket(bucket_name=self.bucket)

    def put(self, key: str, data: bytes | memoryview) -> None:
        with _translated(key):
            self._client.put_object(
                bucket_name=self.bucket,
                object_name=self._name(key),
                data=io.BytesIO(data),
                length=memoryview(data).nbytes,
            )

    def put_if_absent(self, key: str, data: bytes | memoryview) -> bool:
        # The SDK has no public conditional put; a presigned URL signs only the host header, so this one may
        # be added.
        with _translated(key):
            url = self._client.presigned_put_object(
                bucket_name=self.bucket, object_name=self._name(key), expires=_CONDITIONAL_URL
            )
            answer = self._pool.request(
                "PUT", url, body=bytes(data), headers={"If-None-Match": "*"}, retries=False
            )
        if answer.status == _STATUS_ABSENT_FAILED:
            return False
        if answer.status == _STATUS_CONCURRENT and self.size(key) is not None:
            return False
        if answer.status >= 300:
            raise Unavailable(
                f"the object store answered {answer.status} to a conditional put of {key!r}: it must support "
                "If-None-Match and accept these credentials."
            )
        return True

    def put_file(self, key: str, path: Path) -> None:
        with _translated(key):
            self._client.fput_object(
                bucket_name=self.bucket, object_name=self._name(key), file_path=str(path)
            )

    def get(self, key: str) -> bytes:
        return self._read(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            return self._read(key, offset=start, length=length)
        except _RangePastEnd:
            return b""

    def get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with _translated(key):
                answer = self._client.get_object(bucket_name=self.bucket, object_name=self._name(key))
                with _released(answer), open(partial, "wb") as file:
                    for chunk in answer.stream(_CHUNK_BYTES):
                        file.write(chunk)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def size(self, key: str) -> int | None:
        found = self._stat(key)
        return None if found is None else int(found.size)

    def modified_at(self, key: str) -> datetime | None:
        found = self._stat(key)
        return None if found is None else found.last_modified

    def list(self, prefix: str) -> Iterator[str]:
        with _translated(prefix):
            for found in self._client.list_objects(
                bucket_name=self.bucket, prefix=self._prefix + prefix, recursive=True
            ):
                if not found.is_dir:
                    yield found.object_name[len(self._prefix) :]

    def delete(self, key: str) -> None:
        with _translated(key):
            self._client.remove_object(bucket_name=self.bucket, object_name=self._name(key))

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        with _translated(key):
            url: str = self._client.presigned_get_object(
                bucket_name=self.bucket,
                object_name=self._name(key),
                expires=timedelta(seconds=expires_seconds),
            )
        return url

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _read(self, key: str, **range_: int) -> bytes:
        with _translated(key):
            answer = self._client.get_object(bucket_name=self.bucket, object_name=self._name(key), **range_)
            with _released(answer):
                data: bytes = answer.read()
        return data

    def _stat(self, key: str) -> Any:
        try:
            with _translated(key):
                return self._client.stat_object(bucket_name=self.bucket, object_name=self._name(key))
        except NotFound:
            return None


class _RangePastEnd(Exception):
    """The range begins behind the object's last byte."""


@contextmanager
def _released(answer: Any) -> Iterator[None]:
    try:
        yield
    finally:
        answer.close()
        answer.release_conn()


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn the SDK's errors into ours; its own messages may name hosts, so they are only chained."""
    try:
        yield
    except S3Error as error:
        if error.code in _ABSENT:
            raise missing(key) from None
        if error.code == "InvalidRange":
            raise _RangePastEnd from None
        raise Unavailable(
            f"the object store refused {key!r} ({error.code}): check its credentials, bucket and region."
        ) from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise Unavailable(
            f"the object store could not be reached for {key!r}: check its endpoint and that it is running."
        ) from error
