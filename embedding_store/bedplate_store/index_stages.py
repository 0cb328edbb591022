"""The stages of a job that lead from segments to a prepared snapshot."""

from __future__ import annotations

from bedplate.wire.store import IndexSpecification
from bedplate_store.base_indexes import has_parts, part_count, part_rows
from bedplate_store.jobs import PartitionSpec, Stage

MERGE, TRAIN, ADD, ASSEMBLE = "merge", "train", "add", "assemble"


def index_stages(specification: IndexSpecification, rows: int, parts: int | None = None) -> list[Stage]:
    """ "merge" and "assemble", one partition each; where about so many ``rows`` make inverted lists, between
    them "train", one partition, and "add", one for each part, which workers do side by side.

    The counts only decide how the work is cut: a part says which of how many it is, and takes that share of
    the rows there are, and a base that has become too small for lists is indexed all the same.

    Args:
        parts: into how many to cut the rows; None: by their count.
    """
    whole = PartitionSpec({}, rows)
    if not has_parts(specification, rows):
        return [Stage(MERGE, [whole]), Stage(ASSEMBLE, [whole])]
    parts = parts or part_count(rows)
    parts = -(-parts // specification.shards) * specification.shards  # each of one shard only
    spans = [part_rows(rows, part, parts) for part in range(parts)]
    add = [
        PartitionSpec({"part": part, "parts": parts}, stop - start)
        for part, (start, stop) in enumerate(spans)
    ]
    return [
        Stage(MERGE, [whole]),
        Stage(TRAIN, [whole]),
        Stage(ADD, add),
        Stage(ASSEMBLE, [PartitionSpec({"parts": parts}, rows)]),
    ]
