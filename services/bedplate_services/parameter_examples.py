"""One example for every path, query and header parameter, shown in the OpenAPI description and held to the
parameters' schemas by a test.
"""

from __future__ import annotations

from typing import Any

_JOB = "job-80b529e5c1b94080987b0f94592bdc05"
_TRAINING_SET = "ts-6c5fe9f269c74b329f20818438fe747e"
_OBJECT = "training-sets/" + _TRAINING_SET + "/" + "9f" * 32 + ".arrow"

BY_NAME: dict[str, Any] = {
    "alias": "production",
    "allow_late": False,
    "allow_partial": True,
    "at": "2026-11-22T10:00:00Z",
    "batch_rows": 65_536,
    "columns": "key,vector",
    "cursor": "1193",
    "dim": 64,
    "ef": 64,
    "recall": 0.99,
    "filter": '{"attribute": "year", "at_least": 1990}',
    "end": "2026-11-23T00:00:00Z",
    "expert": "feed-ranker",
    "expires": 1_795_341_600,
    "file": "model.safetensors",
    "foundation": "core",
    "from": "core@6",
    "k": 10,
    "key": "1193",
    "kind": "embed",
    "limit": 100,
    "part": 0,
    "range": "bytes=1048576-",
    "reference": "core@production",
    "sequence": 118,
    "shard": 0,
    "shards": 4,
    "signature": "5d" * 32,
    "snapshot": 5,
    "space": "item",
    "start": "2026-11-16T00:00:00Z",
    "start_row": 0,
    "state": "running",
    "subject": "core@7",
    "surface": "feed",
    "table": "rows",
    "task": "label",
    "team": "feed-team",
    "to": "core@7",
    "user": "u42",
    "version": 7,
    "x-bedplate-after": "core@7/item:12",
}
BY_PATH: dict[tuple[str, str], Any] = {
    ("/v1/jobs", "id"): _JOB,
    ("/v1/jobs", "subject"): "core@7/item",
    ("/v1/objects", "key"): _OBJECT,
    ("/v1/teams", "id"): 3,
    ("/v1/training-sets", "id"): _TRAINING_SET,
}
"""Where the name alone does not tell: (beginning of the path, name) -> example."""


def example_of(path: str, parameter: dict[str, Any]) -> Any:
    """The example of an OpenAPI parameter of ``path``; None where nobody has written one."""
    name, schema = parameter["name"], parameter["schema"]
    for (beginning, known), example in BY_PATH.items():
        if known == name and path.startswith(beginning):
            return example
    if name == "version" and schema.get("type") == "string":
        return "production"  # a number or an alias
    return BY_NAME.get(name, schema.get("default"))
