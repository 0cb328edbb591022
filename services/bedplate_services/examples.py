"""One example of every document, shown in the OpenAPI description and held to the models by a test."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from bedplate.wire import registry, serving, shards, store
from bedplate.wire.common import Problem
from bedplate.wire.filters import Filter

_T0 = "2026-11-22T10:00:00Z"
_T1 = "2026-11-22T10:00:01Z"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ID = "0f8fad5bd9cb469fa16570867728950e"

_TEAM = {"name": "feed-team", "description": "ranks the feed"}
_SURFACE = {"name": "feed", "team": "feed-team", "description": "the home feed"}
_FOUNDATION = {"name": "core", "team": "foundation-team", "description": "HSTU over all surfaces"}
_EXPERT = {"name": "feed-ranker", "surface": "feed", "description": "light HSTU on the TAE"}
_TOKEN = {"id": 3, "team": "feed-team", "role": "member", "description": "training jobs", "created_at": _T0}
_COMPRESSION = {
    "rows": 3706,
    "relative_error_mean": 0.0064,
    "relative_error_p99": 0.0091,
    "recall_at_10": 0.988,
}
_SPACE = {"dim": 64, "dtype": "float16", "metric": "inner_product", "entity": "item", "key_type": "string"}
_SPACE_FILE = {
    "name": "vectors",
    "bytes": 474_368,
    "sha256": _SHA,
    "url": "http://127.0.0.1:8700/v1/objects/segments/5e88/vectors?expires=1795340400&signature=5e884898",
    "path": None,
}
_SPACE_SEGMENT = {"digest": _SHA, "rows": 3706, "tombstones": 0, "files": [_SPACE_FILE]}
_SIGNATURE = {
    "architecture": "hstu-foundation",
    "inputs": {"max_history": 200},
    "tasks": ["label"],
    "spaces": {"item": _SPACE, "tae": {**_SPACE, "entity": None}},
    "tensors": {"query": {"dtype": "F32", "shape": [64]}},
}
_EXPERT_SIGNATURE = {
    "architecture": "fm-expert",
    "inputs": {"foundation_version": "core@7"},
    "tasks": ["main"],
    "spaces": {},
    "tensors": {"query": {"dtype": "F32", "shape": [64]}},
}
_FILE = {"name": "model.safetensors", "sha256": _SHA, "bytes": 14_680_064, "parts": 1}
_FILES = [
    _FILE,
    {"name": "config.json", "sha256": _SHA, "bytes": 812_345, "parts": 1},
    {"name": "signature.json", "sha256": _SHA, "bytes": 4_096, "parts": 1},
]
_CHECKPOINT = {"signature": _SIGNATURE, "files": _FILES, "metrics": {"ne": 0.87}, "description": "weekly"}
_VERSION = {
    **_CHECKPOINT,
    "parent": 6,
    "training_window_start": "2026-10-01T00:00:00Z",
    "training_window_end": "2026-11-20T00:00:00Z",
}
_EXPERT_VERSION = {
    **_CHECKPOINT,
    "signature": _EXPERT_SIGNATURE,
    "pinned_version": "core@7",
    "pinned_space": "tae",
    "training_set": _ID,
}
_READY = {"state": "ready", "digest": _SHA, "created_at": _T0, "finalised_at": _T1}
_READS = [{"space": "core@7/tae", "storage": "float16", "snapshot": None}]
_NE_COST = {
    "storage": "int8",
    "against": "float16",
    "surface": "feed",
    "task": "label",
    "expert": "feed-ranker",
    "variant": "vectors",
    "spaces": ["item", "user"],
    "window_start": "2026-11-20T00:00:00Z",
    "window_end": "2026-11-22T00:00:00Z",
    "ne": 0.8714,
    "ne_against": 0.871,
    "cost": 0.0004,
    "cost_std": 0.0002,
    "seeds": 3,
}
_EVALUATION = {
    "subject": "feed-ranker@3",
    "surface": "feed",
    "task": "label",
    "window_start": "2026-11-20T00:00:00Z",
    "window_end": "2026-11-22T00:00:00Z",
    "rows": 81_402,
    "metrics": {"ne": 0.871, "auc": 0.752},
    "variant": "tae",
    "seed": 0,
    "reads": _READS,
}
_EVENT = {
    "user": "u42",
    "item": "1193",
    "action": "like",
    "surface": "feed",
    "event_time": _T0,
    "label": 1.0,
    "features": {"genres": ["Drama"], "year": 1975},
}
_OUTCOME = {"request_id": _ID, "item": "1193", "task": "label", "label": 1.0, "outcome_time": _T1}
_TRAINING_SET = {
    "name": "feed-november",
    "surface": "feed",
    "versions": ["core@6", "core@7"],
    "window_start": "2026-11-01T00:00:00Z",
    "window_end": "2026-11-20T00:00:00Z",
    "task": "label",
    "history_length": 16,
}
_TAE_REQUEST = {"user": "u42", "surface": "feed", "candidates": ["1193", "661"], "include_vectors": True}
_TAE_ANSWER = {
    "request_id": _ID,
    "served_at": _T0,
    "history_events": 118,
    "versions": [
        {
            "version": "core@7",
            "dim": 2,
            "vectors": [[0.25, -0.5], [0.125, 1.0]],
            "predictions": [0.61, 0.12],
        }
    ],
}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    Problem: {
        "type": "urn:bedplate:problem:alias_moved",
        "title": "The alias was moved by somebody else meanwhile",
        "status": 412,
        "detail": "core@production points at 6, not at 5: read it again and decide anew.",
        "code": "alias_moved",
        "request_id": _ID,
    },
    registry.TeamCreate: _TEAM,
    registry.Team: {**_TEAM, "created_at": _T0},
    registry.TokenCreate: {"description": "training jobs", "role": "member"},
    registry.Token: _TOKEN,
    registry.TokenIssued: {**_TOKEN, "secret": "bp_3f0c-shown-this-once"},
    registry.SurfaceCreate: _SURFACE,
    registry.Surface: {**_SURFACE, "created_at": _T0},
    registry.FoundationCreate: _FOUNDATION,
    registry.Foundation: {**_FOUNDATION, "created_at": _T0, "latest_version": 7},
    registry.SpaceSignature: _SPACE,
    registry.TensorSignature: {"dtype": "F32", "shape": [64]},
    registry.Signature: _SIGNATURE,
    registry.FileManifest: _FILE,
    registry.VersionCreate: _VERSION,
    registry.Version: {
        **_VERSION,
        **_READY,
        "foundation": "core",
        "version": 7,
        "reference": "core@7",
        "aliases": ["production"],
    },
    registry.UploadStatus: {
        "received": {"model.safetensors": [0, 1], "config.json": [0], "signature.json": []}
    },
    registry.AliasMove: {"version": 7, "expected_version": 6, "reason": "better on every surface"},
    registry.Alias: {"foundation": "core", "alias": "production", "version": 7, "moved_at": _T0},
    registry.AliasChange: {
        "alias": "production",
        "from_version": 6,
        "to_version": 7,
        "reason": "better on every surface",
        "moved_by": "foundation-team",
        "moved_at": _T0,
    },
    registry.ExpertCreate: _EXPERT,
    registry.Expert: {**_EXPERT, "created_at": _T0, "latest_version": 3, "serving_version": 3},
    registry.ExpertVersionCreate: _EXPERT_VERSION,
    registry.ExpertVersion: {
        **_EXPERT_VERSION,
        **_READY,
        "expert": "feed-ranker",
        "surface": "feed",
        "version": 3,
    },
    registry.ServingMove: {"version": 3, "expected_version": 2, "reason": "NE 0.3 % lower"},
    registry.SpaceRead: _READS[0],
    registry.NeCost: _NE_COST,
    registry.EvaluationCreate: _EVALUATION,
    registry.Evaluation: {**_EVALUATION, "id": 17, "team": "feed-team", "created_at": _T0},
    registry.TransferRatio: {
        "surface": "feed",
        "task": "label",
        "from_version": "core@6",
        "to_version": "core@7",
        "expert": "feed-ranker",
        "variant": "tae",
        "window_start": "2026-11-20T00:00:00Z",
        "window_end": "2026-11-22T00:00:00Z",
        "foundation_ne_from": 0.874,
        "foundation_ne_to": 0.869,
        "expert_ne_from": 0.871,
        "expert_ne_to": 0.868,
        "seeds": 3,
        "ratio": 0.6,
        "ratio_std": 0.05,
        "reason": None,
    },
    store.Space: {
        "reference": "core@7/item",
        "foundation": "core",
        "version": 7,
        "space": "item",
        "dim": 64,
        "dtype": "float16",
        "metric": "inner_product",
        "key_type": "string",
        "snapshot": 2,
        "rows": 3706,
        "pending_rows": 0,
        "updated_at": _T0,
    },
    store.Compression: _COMPRESSION,
    store.Snapshot: {
        "reference": "core@7/item",
        "snapshot": 2,
        "digest": _SHA,
        "rows": 3706,
        "bytes": 520_192,
        "index_kind": "flat",
        "index_parameters": {},
        "recall_at_10": 1.0,
        "compression": _COMPRESSION,
        "job": _ID,
        "published_at": _T0,
    },
    store.StorageCost: {
        "dtype": "int8",
        "row_bytes": 66,
        "space": "core@8/item",
        "snapshot": 1,
        "rows": 3706,
        "bytes": 292_774,
        "compression": _COMPRESSION,
        "ne": [_NE_COST],
        "unmeasured": [],
    },
    shards.ShardAssign: {"space": "*", "shards": [0, 3], "node": "node-2", "expected_node": "node-1"},
    shards.ShardAssignment: {"space": "*", "shard": 3, "node": "node-2", "assigned_at": _T0},
    shards.ShardMove: {
        "space": "*",
        "shard": 3,
        "from_node": "node-1",
        "to_node": "node-2",
        "moved_by": "platform",
        "moved_at": _T0,
    },
    shards.ShardsAnswered: {"answered": 7, "of": 8},
    store.OpenReader: {
        "reader": _ID,
        "service": "api",
        "process": "api-7c9f/17",
        "url": "http://127.0.0.1:8700",
        "snapshot": 2,
        "sequence": 12,
        "newest": True,
        "in_use": True,
        "seen_at": _T0,
    },
    store.LookupRequest: {"keys": ["1193", "no-such-item"]},
    store.LookupAnswer: {
        "reference": "core@7/item",
        "snapshot": 2,
        "dim": 2,
        "found": [True, False],
        "vectors": [[0.6, 0.8], [0.0, 0.0]],
    },
    store.SearchRequest: {"keys": ["1193"], "k": 2},
    store.SearchHit: {"key": "661", "score": 0.93},
    store.SearchAnswer: {
        "reference": "core@7/item",
        "snapshot": 2,
        "found": [True],
        "hits": [[{"key": "661", "score": 0.93}, {"key": "914", "score": 0.91}]],
    },
    store.UpsertRequest: {
        "keys": ["1193"],
        "vectors": [[0.6, 0.8]],
        "attributes": {"year": [1975], "genres": [["Drama"]]},
    },
    Filter: {"all": [{"attribute": "year", "at_least": 1970}, {"attribute": "genres", "any_of": ["Drama"]}]},
    store.DeleteRequest: {"keys": ["1193"]},
    store.WriteAnswer: {"reference": "core@7/item", "rows": 1, "sequence": 12, "token": "core@7/item:12"},
    store.IndexSpecification: {"kind": "auto", "recall_target": 0.95},
    store.EmbedRequest: {
        "index": {"kind": "auto", "recall_target": 0.95},
        "attributes": ["genres", "year"],
        "idempotency_key": "core-7-item",
    },
    store.EmbedAnswer: {"job": _ID},
    store.Event: _EVENT,
    store.EventBatch: {"events": [_EVENT]},
    store.EventsAccepted: {"accepted": 1, "sequence": 1_000_209},
    store.Item: {"key": "1193", "features": {"genres": ["Drama"], "year": 1975}},
    store.ItemBatch: {"items": [{"key": "1193", "features": {"genres": ["Drama"], "year": 1975}}]},
    store.ItemsAccepted: {"accepted": 1},
    store.Timeline: {"user": "u42", "at": _T1, "events": [_EVENT]},
    store.Outcome: _OUTCOME,
    store.OutcomeBatch: {"surface": "feed", "outcomes": [_OUTCOME]},
    store.OutcomesAccepted: {"accepted": 1, "duplicates": 0},
    store.TrainingSetCreate: _TRAINING_SET,
    store.TrainingSet: {
        **_TRAINING_SET,
        "id": _ID,
        "team": "feed-team",
        "state": "ready",
        "job": _ID,
        "rows": 81_402,
        "requests": 5120,
        "unlabelled": 210,
        "incomplete": 0,
        "bytes": 22_020_096,
        "digest": _SHA,
        "created_at": _T0,
    },
    store.LogSealed: {"segments": 1, "requests": 40, "rows": 800},
    store.SpaceFile: _SPACE_FILE,
    store.SpaceSegment: _SPACE_SEGMENT,
    store.SpaceFiles: {
        "reference": "core@7/item",
        "snapshot": 2,
        "sequence": 14,
        "dim": 64,
        "dtype": "float16",
        "key_type": "string",
        "segments": [_SPACE_SEGMENT],
    },
    store.TrainingSetFile: {
        "name": "rows-00000.arrow",
        "table": "rows",
        "rows": 81_402,
        "bytes": 21_000_000,
        "sha256": _SHA,
        "url": "http://127.0.0.1:8700/v1/objects/training/rows.arrow?expires=1795340400&signature=5e884898",
        "path": None,
    },
    store.JobProgress: {"stage": "embed", "done": 2048, "total": 3706, "unit": "rows"},
    store.Job: {
        "id": _ID,
        "kind": "embed",
        "subject": "core@7/item",
        "state": "running",
        "team": "foundation-team",
        "progress": [{"stage": "embed", "done": 2048, "total": 3706, "unit": "rows"}],
        "attempts": 1,
        "created_at": _T0,
        "started_at": _T1,
    },
    serving.TaeRequest: _TAE_REQUEST,
    serving.TaeBatch: {"requests": [_TAE_REQUEST]},
    serving.VersionTae: _TAE_ANSWER["versions"][0],  # type: ignore[index]  # a literal dict of mixed values
    serving.TaeAnswer: _TAE_ANSWER,
    serving.TaeBatchAnswer: {"answers": [_TAE_ANSWER]},
    serving.RankRequest: {"user": "u42", "candidates": ["1193", "661"]},
    serving.RankAnswer: {
        "request_id": _ID,
        "surface": "feed",
        "expert": "feed-ranker@3",
        "foundation_version": "core@7",
        "snapshots": {},
        "served_at": _T0,
        "scores": [0.61, 0.12],
        "order": [0, 1],
    },
    serving.Endpoints: {
        "registry": "http://127.0.0.1:8700",
        "store": "http://127.0.0.1:8700",
        "inference": "http://127.0.0.1:8701",
        "version": "0.1.0",
    },
}

BY_NAME: dict[str, dict[str, Any]] = {model.__name__: example for model, example in EXAMPLES.items()}
"""The same by the models' names, as components of the OpenAPI document are called."""
