"""Every table of the store; importing this fills ``Base.metadata``."""

from bedplate_store.tables import jobs, records, shards, spaces
from bedplate_store.tables.base import Base

__all__ = ["Base", "jobs", "records", "shards", "spaces"]
