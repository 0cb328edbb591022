"""The settings of a platform that runs on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.engines.postgresql import PostgreSQL
from tests.engines.s3 import S3


@contextmanager
def on_servers(
    postgresql: PostgreSQL, s3: S3, broker_url: str, s3_endpoint: str | None = None
) -> Iterator[dict[str, str]]:
    """Two new databases, a new bucket and a broker; ``s3_endpoint``: reach the bucket there."""
    with postgresql.database() as registry, postgresql.database() as store, s3.bucket() as objects:
        yield {
            "BEDPLATE_REGISTRY_DATABASE_URL": registry,
            "BEDPLATE_STORE_DATABASE_URL": store,
            "BEDPLATE_BROKER_URL": broker_url,
            "BEDPLATE_OBJECTS_URL": objects.replace(s3.endpoint, s3_endpoint or s3.endpoint),
            "BEDPLATE_S3_ACCESS_KEY": s3.access_key,
            "BEDPLATE_S3_SECRET_KEY": s3.secret_key,
        }
