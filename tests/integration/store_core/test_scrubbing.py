"""A scrub names the objects that are not what was written, and no others."""

from __future__ import annotations

from typing import Any

from bedplate_store.scrubbing import Scrubbed, scrub
from bedplate_store.segment_files import MANIFEST, object_key

from .conftest import DIM, NOW


def run(store: Any) -> Scrubbed:
    return scrub(store.database, store.objects, now=NOW, progress=lambda _done: None)


def flip(store: Any, key: str) -> bytes:
    data: bytes = store.objects.get(key)
    store.objects.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    return data


def test_damaged_and_missing_objects_are_named(store: Any) -> None:
    space = store.space()
    vectors = [[float(row)] * DIM for row in range(1500)]
    store.embed(space, list(range(1500)), vectors)
    store.upsert(space, [1], vectors[:1])
    whole = run(store)
    assert (whole.damaged, whole.missing) == ([], [])
    assert whole.objects > 2
    assert whole.bytes > 1500 * DIM * 2
    base = store.readers(refresh_seconds=0).get(*space).base.info.digest
    for name in ("vectors", MANIFEST):
        key = object_key(base, name)
        kept = flip(store, key)
        assert (run(store).damaged, run(store).missing) == ([key], [])
        store.objects.delete(key)
        assert (run(store).damaged, run(store).missing) == ([], [key])
        store.objects.put(key, kept)
    assert run(store) == whole
