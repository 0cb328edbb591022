"""The stages between embedding and publishing: merge, train, add parts, assemble."""

from __future__ import annotations

from typing import Any

from bedplate_store import base_indexes, compression, jobs, snapshot_bases
from bedplate_store.base_indexes import IndexFile
from bedplate_store.embedding_jobs import EmbedPlan
from bedplate_store.index_stages import ADD, MERGE, TRAIN
from bedplate_store.leases import Claim
from bedplate_store.snapshot_bases import Base
from bedplate_store.snapshots import PreparedSnapshot
from bedplate_workers.embed import samples_of
from bedplate_workers.handlers import Finish, Progress, Workplace, result


def merge(workplace: Workplace, claim: Claim, progress: Progress) -> Finish:
    """Fold the partitions' segments, the present snapshot and writes into one base; nobody sees it yet."""
    plan = EmbedPlan.from_json(claim.job_params)
    with workplace.store.read() as session:
        embedded = jobs.results(session, claim.job_id, "embed")
    base = snapshot_bases.fold(
        workplace.store,
        workplace.objects,
        workplace.cache_dir,
        plan.space_key,
        [each["segment"] for each in embedded],
        covers_sequence=plan.covers_sequence,
        progress=progress,
    )
    return result(base.to_json())


def train(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Train the inverted lists, once for all parts; none if the base has become too small for them."""
    plan = EmbedPlan.from_json(claim.job_params)
    trained = base_indexes.train_index(
        workplace.objects,
        workplace.cache_dir,
        _base(workplace, claim),
        plan.index,
        centroids=workplace.centroids,
    )
    return result({"trained": None if trained is None else trained.to_json()})


def add(workplace: Workplace, claim: Claim, progress: Progress) -> Finish:
    """Add one part's share of the rows to a copy of the trained index."""
    (trained,) = _results(workplace, claim, TRAIN)
    if trained["trained"] is None:
        return result({"part": None})
    base = _base(workplace, claim)
    start, stop = base_indexes.part_rows(base.segment.rows, claim.params["part"], claim.params["parts"])
    part = base_indexes.add_part(
        workplace.objects,
        workplace.cache_dir,
        base,
        IndexFile.from_json(trained["trained"]),
        start,
        stop,
        progress=progress,
        centroids=workplace.centroids,
    )
    return result({"part": part.to_json()})


def assemble(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    """Merge the parts, or build an index that has none; measure its recall, and what compression cost."""
    plan = EmbedPlan.from_json(claim.job_params)
    added = _results(workplace, claim, ADD) if "parts" in claim.params else []
    parts = [IndexFile.from_json(each["part"]) for each in added if each["part"] is not None]
    base = _base(workplace, claim)
    index = base_indexes.index_base(
        workplace.objects, workplace.cache_dir, base, plan.index, parts, centroids=workplace.centroids
    )
    samples = samples_of(_results(workplace, claim, "embed"))
    cost = compression.measure(workplace.objects, workplace.cache_dir, base.segment, samples, base.metric)
    return result(PreparedSnapshot.of(base, index, plan.index, cost).to_json())


def _base(workplace: Workplace, claim: Claim) -> Base:
    (merged,) = _results(workplace, claim, MERGE)
    return Base.from_json(merged)


def _results(workplace: Workplace, claim: Claim, stage: str) -> list[dict[str, Any]]:
    with workplace.store.read() as session:
        return list(jobs.results(session, claim.job_id, stage))
