"""Which handler does which stage of which kind of job."""

from __future__ import annotations

from bedplate_workers import (
    collection,
    compaction,
    embed,
    indexing,
    log_sealing,
    scrubbing,
    training_sets,
)
from bedplate_workers.handlers import Handlers

HANDLERS: Handlers = {
    ("embed", "embed"): embed.embed,
    ("embed", "merge"): indexing.merge,
    ("embed", "train"): indexing.train,
    ("embed", "add"): indexing.add,
    ("embed", "assemble"): indexing.assemble,
    ("embed", "publish"): embed.publish,
    ("training_set", "join"): training_sets.join,
    ("training_set", "publish"): training_sets.publish,
    ("compact", "compact"): compaction.compact,
    ("collect", "collect"): collection.collect,
    ("scrub", "scrub"): scrubbing.scrub,
    ("seal_log", "seal"): log_sealing.seal,
}
