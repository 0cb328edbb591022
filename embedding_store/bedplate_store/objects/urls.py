"""Which adapter a URL means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from bedplate.errors import InvalidRequest
from bedplate_store.objects.local import LocalObjectStore
from bedplate_store.objects.memory import MemoryObjectStore
from bedplate_store.objects.port import ObjectStore
from bedplate_store.objects.retries import OnFault, Patience, uncounted
from bedplate_store.objects.s3 import S3ObjectStore

_FORMS = "file:///path, s3://bucket/prefix?endpoint=http(s)://host:port, or memory://"


def open_object_store(
    url: str,
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str | None = None,
    patience: Patience | None = None,
    on_fault: OnFault = uncounted,
) -> ObjectStore:
    """Open the object store a URL names; the keys are for ``s3://`` and never part of the URL, and so are
    ``patience`` and ``on_fault``: only a remote store is asked again.

    Raises:
        InvalidRequest: the URL has none of the known forms.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return LocalObjectStore(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return MemoryObjectStore()
    endpoint = parse_qs(parts.query).get("endpoint", [""])[0]
    if parts.scheme == "s3" and parts.netloc and endpoint.startswith(("http://", "https://")):
        return S3ObjectStore(
            endpoint,
            parts.netloc,
            parts.path,
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            patience=patience,
            on_fault=on_fault,
        )
    raise InvalidRequest(f"{url!r} names no object store: write it as {_FORMS}.")
