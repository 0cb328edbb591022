"""The bucket that the chart's Job makes, on a real S3 server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from tests.engines import S3

from bedplate_services.provisioning import ProvisioningSettings, ensure_bucket
from bedplate_store.objects import open_object_store


def test_a_missing_bucket_is_made_and_one_that_is_there_is_kept(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"bedplate-{uuid.uuid4().hex[:12]}"
    url = f"s3://{bucket}/prefix?endpoint={s3.endpoint}"
    for name, value in {
        "REGISTRY_DATABASE_URL": "sqlite://",
        "STORE_DATABASE_URL": "sqlite://",
        "OBJECTS_URL": url,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
        "CACHE_DIR": str(tmp_path),
        "SPOOL_DIR": str(tmp_path),
        "ADMIN_TOKEN": "t" * 40,
    }.items():
        monkeypatch.setenv(f"BEDPLATE_{name}", value)
    settings = ProvisioningSettings()
    assert ensure_bucket(settings) == f"the bucket {bucket} is there"
    objects = open_object_store(url, **s3.keys)
    objects.put("kept", b"1")
    assert ensure_bucket(settings) == f"the bucket {bucket} is there"
    assert objects.get("kept") == b"1"
