"""A worker whose models and inverted lists are computed on a GPU, against one on the processor.

The job also runs with its centroids compared by another index on the processor, which holds the worker to it
on machines without a GPU, too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from bedplate.references import VersionReference
from bedplate.wire.registry import SpaceSignature, Version
from bedplate.wire.store import EmbedRequest, IndexSpecification, Item, Job
from bedplate_modeling.events import History
from bedplate_modeling.requests import TaeRequest, UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_store import embedding_jobs, items
from bedplate_store.indexes import centroid_search
from bedplate_store.readers import SpaceReaders
from bedplate_store.writes import Writes
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints
from bedplate_workers.job_kinds import HANDLERS

KEYS = [f"item-{number:02d}" for number in range(40)]
WRITTEN = [f"by-hand-{number}" for number in range(1_500)]
ROUNDING = 1e-4
EVERY_LIST = 1_000


@pytest.fixture(params=["processor", "gpu"])
def elsewhere(request: pytest.FixtureRequest, bench: Any, tmp_path: Path) -> Any:
    """The bench, with a worker that compares centroids in another index, or runs all it can on a GPU."""
    place = bench.workplace
    if request.param == "processor":
        return replace(bench, workplace=replace(place, centroids=flat))
    device = request.getfixturevalue("gpu")
    search = centroid_search(device)
    assert search is not None, "FAISS does not see the GPU"
    files = CheckpointFiles(place.registry, place.objects, tmp_path / "cache")
    models = Checkpoints(files, partial(FoundationRuntime.load, device=device))
    return replace(bench, workplace=replace(place, centroids=search, checkpoints=models))


def flat(lists: Any) -> Any:
    return faiss.IndexFlat(lists.d, lists.metric_type)


def embed(bench: Any) -> dict[str, Any]:
    """What a job says that embeds ``core@1`` and indexes it by inverted lists, in two parts."""
    with bench.workplace.store.write() as session:
        job: Job = embedding_jobs.plan_embed(
            session,
            version=VersionReference("core", "1"),
            space="item",
            signature=SpaceSignature(dim=8, dtype="float32"),
            request=EmbedRequest(partitions=2, index=IndexSpecification(kind="ivf", recall_target=0.9)),
            team="core-team",
            now=bench.clock(),
        )
    bench.work_all(bench.worker(HANDLERS))
    state = bench.state(job)
    assert state.state == "succeeded", state.error
    assert state.result is not None
    return dict(state.result)


@pytest.fixture
def filled(bench: Any, foundation: Version) -> dict[str, Any]:
    """A space with rows enough for inverted lists, all by the processor: what the job said."""
    place = bench.workplace
    with place.store.write() as session:
        items.upsert(session, [Item(key=key, features={"genre": 1}) for key in KEYS], now=bench.clock())
    embed(bench)
    vectors = np.random.default_rng(2).standard_normal((len(WRITTEN), 8)).astype(np.float32)
    Writes(place.store, place.objects).upsert(
        foundation="core", version=1, space="item", keys=WRITTEN, vectors=vectors, now=bench.clock()
    )
    return embed(bench)


def test_a_space_that_is_built_elsewhere_is_the_same(
    elsewhere: Any, filled: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = elsewhere.workplace
    before = SpaceReaders(place.store, place.objects, tmp_path / "before").get("core", 1, "item")
    built = embed(elsewhere)
    assert (built["rows"], built["index_kind"]) == (filled["rows"], "ivf") == (1_540, "ivf")
    assert built["recall_at_10"] >= 0.9
    reader = SpaceReaders(place.store, place.objects, tmp_path / "after").get("core", 1, "item")
    vectors = reader.lookup(KEYS).vectors
    np.testing.assert_allclose(vectors, before.lookup(KEYS).vectors, atol=ROUNDING)
    assert reader.search(vectors, 10, ef=EVERY_LIST).keys == before.search(vectors, 10, ef=EVERY_LIST).keys
    if "gpu" not in request.fixturenames:
        assert built["digest"] == filled["digest"]


@pytest.mark.usefixtures("foundation")
def test_models_say_the_same_on_a_gpu(gpu: str, tmp_path: Path) -> None:
    here, there = (FoundationRuntime.load(tmp_path / "core-1", device) for device in ("cpu", gpu))
    history = History(["item-01", "item-02", "?"], ["like"] * 3, ["feed"] * 3, np.arange(3) * 60_000)
    features = {"??": {"genre": 1}}
    for one, other in zip(
        (here.embed_items([*KEYS, "??"], features), here.embed_users([UserRequest("u", 10**6, history)])),
        (there.embed_items([*KEYS, "??"], features), there.embed_users([UserRequest("u", 10**6, history)])),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=ROUNDING)
    request = TaeRequest("u", "feed", 10**6, ["item-03", "??"], history, features)
    cached = there.prefill(history, there.prefill(history.before(90_000)))
    for theirs in (there.tae([request]), there.score([cached], [request])):
        [ours], [own] = here.tae([request]), theirs
        np.testing.assert_allclose(ours.tae_MD, own.tae_MD, atol=ROUNDING)
        np.testing.assert_allclose(ours.prediction_M, own.prediction_M, atol=ROUNDING)
