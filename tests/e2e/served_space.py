"""A space that is served by alias, made without running a model."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
from safetensors.numpy import save_file

from bedplate import Client
from bedplate.wire.registry import Signature, SpaceSignature, TensorSignature
from bedplate.wire.store import IndexSpecification
from bedplate_modeling import checkpoint_layout as layout
from bedplate_store import snapshots
from bedplate_store.objects import open_object_store
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey

from .cluster import Cluster

ROWS, DIM = 20_000, 32
LOOKUP = "/v1/spaces/core@production/item/lookup"
SEARCH = "/v1/spaces/core@production/item/search"


def publish(cluster: Cluster, client: Client) -> None:
    """core@1, with a snapshot of its only space, behind an alias; the model is never run."""
    folder = cluster.folder / "checkpoint"
    folder.mkdir()
    save_file({"number": np.zeros(1, np.float32)}, folder / layout.WEIGHTS)
    (folder / layout.CONFIG).write_text(json.dumps({"architecture": layout.FOUNDATION}))
    signature = Signature(
        architecture=layout.FOUNDATION,
        spaces={"item": SpaceSignature(dim=DIM, dtype="float32", key_type="int64")},
        tensors={"number": TensorSignature(dtype="F32", shape=[1])},
    )
    (folder / layout.SIGNATURE).write_text(signature.model_dump_json())
    client.teams.create("foundation")
    client.foundations.create("core", team="foundation")
    client.versions.publish("core", folder)
    database, objects = cluster.store(), open_object_store(cluster.objects_url)
    vectors = np.random.default_rng(5).standard_normal((ROWS, DIM), np.float32)
    segment = write_segment(objects, keys=np.arange(ROWS), vectors=vectors, dtype="float32", key_type="int64")
    prepared = snapshots.prepare(
        database,
        objects,
        cluster.folder / "building",
        SpaceKey("core", 1, "item"),
        [segment.digest],
        IndexSpecification(kind="flat"),
    )
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=datetime.now(UTC))
    database.close()
    client.aliases.move("core", "production", 1)
