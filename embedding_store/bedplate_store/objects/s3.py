"""Objects in a bucket behind the S3 API, through the ``minio`` SDK.

What may pass is tried again (retries.py); what comes is counted against its announced length and, where the
caller knows it, its digest. So half a body or a flipped byte is a fault like a time-out, never an answer.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from bedplate.errors import NotFound
from bedplate.full_disks import named_full_disk
from bedplate_store.objects.port import check_key
from bedplate_store.objects.retries import OnFault, Patience, Retries, uncounted
from bedplate_store.objects.s3_faults import (
    RangePastEnd,
    came_short,
    came_slowly,
    came_wrong,
    refused,
    translated,
)

_CHUNK_BYTES = 1 << 20
_URL_EXPIRES = timedelta(minutes=10)
_SINGLE_PUT_BYTES = 64 << 20
_LIST_PAGE = 1000  # what one request brings


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
        patience: Patience | None = None,
        on_fault: OnFault = uncounted,
    ) -> None:
        parsed = urllib3.util.parse_url(endpoint)
        self._retries = Retries(patience or Patience(), on_fault)
        self._patience = self._retries.patience
        self._pool = urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=self._patience.connect_seconds, read=self._patience.read_seconds),
            retries=False,  # ours, which are logged and counted, are enough
        )
        # Named, so that the SDK need not ask the server for it before the first call.
        self._region = region or "us-east-1"
        self._credentials = Credentials(access_key, secret_key) if access_key and secret_key else None
        self._client: Any = Minio(
            endpoint=parsed.netloc or endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=parsed.scheme == "https",
            region=self._region,
            http_client=self._pool,
        )
        self.bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def ensure_bucket(self) -> None:
        """Make the bucket where it is missing."""

        def ensure() -> None:
            with translated(self.bucket):
                if not self._client.bucket_exists(bucket_name=self.bucket):
                    self._client.make_bucket(bucket_name=self.bucket)

        self._retries.run("ensure_bucket", self.bucket, ensure)

    def put(self, key: str, data: bytes | memoryview) -> None:
        name, length = self._name(key), memoryview(data).nbytes

        def put() -> None:
            if length <= _SINGLE_PUT_BYTES:
                answer = self._put_checked(key, name, bytes(data))
                if answer.status >= 300:
                    raise refused(key, answer.status, answer.data)
                return
            with translated(key):
                self._client.put_object(
                    bucket_name=self.bucket, object_name=name, data=io.BytesIO(data), length=length
                )

        self._retries.run("put", key, put)

    def put_file(self, key: str, path: Path) -> None:
        name = self._name(key)

        if path.stat().st_size <= _SINGLE_PUT_BYTES:
            self.put(key, path.read_bytes())
            return

        def put() -> None:
            with translated(key):
                self._client.fput_object(bucket_name=self.bucket, object_name=name, file_path=str(path))

        self._retries.run("put_file", key, put)

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        name = self._name(key)

        def get() -> bytes:
            buffer = io.BytesIO()
            self._read(key, name, buffer, sha256)
            return buffer.getvalue()

        return self._retries.run("get", key, get)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        name = self._name(key)
        if length <= 0:
            return b""

        def get() -> bytes:
            buffer = io.BytesIO()
            self._read(key, name, buffer, None, offset=start, length=length)
            return buffer.getvalue()

        try:
            return self._retries.run("get_range", key, get)
        except RangePastEnd:
            return b""

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        name = self._name(key)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")

        def get() -> None:
            with open(partial, "wb") as file:
                self._read(key, name, file, sha256)
                file.flush()
                # Before it has its name: after a power cut the name must not stand for zeros.
                os.fsync(file.fileno())

        with named_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._retries.run("get_file", key, get)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def size(self, key: str) -> int | None:
        found = self._retries.run("size", key, lambda: self._stat(key))
        return None if found is None else int(found.size)

    def modified_at(self, key: str) -> datetime | None:
        found = self._retries.run("modified_at", key, lambda: self._stat(key))
        return None if found is None else found.last_modified

    def list(self, prefix: str) -> Iterator[str]:
        names: Sequence[str] = ()
        while True:
            after = names[-1] if names else None
            names = self._retries.run("list", prefix, partial(self._page, prefix, after))
            yield from (name[len(self._prefix) :] for name in names)
            if len(names) < _LIST_PAGE:
                return

    def delete(self, key: str) -> None:
        name = self._name(key)

        def delete() -> None:
            with translated(key):
                self._client.remove_object(bucket_name=self.bucket, object_name=name)

        self._retries.run("delete", key, delete)

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        with translated(key):
            url: str = self._client.presigned_get_object(
                bucket_name=self.bucket,
                object_name=self._name(key),
                expires=timedelta(seconds=expires_seconds),
            )
        return url

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _read(self, key: str, name: str, sink: BinaryIO, sha256: str | None, **range_: int) -> None:
        """One attempt: the answer's bytes into ``sink``, counted, timed, and checked against ``sha256``."""
        started_at, digest, done = self._retries.clock(), hashlib.sha256(), 0
        with translated(key):
            answer = self._client.get_object(bucket_name=self.bucket, object_name=name, **range_)
            try:
                announced = answer.headers.get("content-length")
                # As much as is there, so that a drip is noticed between two reads.
                while chunk := answer.read1(_CHUNK_BYTES):
                    sink.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if not self._patience.allows(done, self._retries.clock() - started_at):
                        raise came_slowly(key, done)
            finally:
                answer.close()
                answer.release_conn()
        if announced is not None and int(announced) != done:
            raise came_short(key, done, int(announced))
        if sha256 is not None and digest.hexdigest() != sha256:
            raise came_wrong(key, sha256, digest.hexdigest())

    def _put_checked(self, key: str, name: str, data: bytes) -> urllib3.BaseHTTPResponse:
        """The answer to a put in one piece, signed with both digests of its body.

        The SDK sends no Content-MD5; not every server checks the SHA-256 alone.
        """
        with translated(key):
            presigned = self._client.presigned_put_object(
                bucket_name=self.bucket, object_name=name, expires=_URL_EXPIRES
            )
            url = urlsplit(presigned)._replace(query="")
            sha256, now = hashlib.sha256(data).hexdigest(), datetime.now(UTC)
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            signed: Any = {
                "Host": url.netloc,
                "Content-Length": str(len(data)),
                "Content-MD5": base64.b64encode(md5).decode(),
                "x-amz-content-sha256": sha256,
                "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
            }
            if self._credentials is not None:
                signed = sign_v4_s3(
                    method="PUT",
                    url=url,
                    region=self._region,
                    headers=signed,
                    credentials=self._credentials,
                    content_sha256=sha256,
                    date=now,
                )
            # As a file it is sent in pieces, and the time-out is that of a piece.
            return self._pool.request("PUT", url.geturl(), body=io.BytesIO(data), headers=signed)

    def _stat(self, key: str) -> Any:
        name = self._name(key)
        try:
            with translated(key):
                return self._client.stat_object(bucket_name=self.bucket, object_name=name)
        except NotFound:
            return None

    def _page(self, prefix: str, after: str | None) -> Sequence[str]:
        with translated(prefix):
            found = self._client.list_objects(
                bucket_name=self.bucket, prefix=self._prefix + prefix, recursive=True, start_after=after
            )
            return [each.object_name for each in islice(found, _LIST_PAGE)]
