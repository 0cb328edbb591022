"""A real S3 server behind a proxy that spoils requests: each fault once, and each for good."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_core.conftest import PATIENCE
from tests.contract.store_core.fault_proxy import FaultProxy, Kind

from bedplate.errors import ObjectDamaged, Unavailable
from bedplate_store.objects import S3ObjectStore

SLOW = 2.0  # longer than the patience below
READ_FAULTS: list[Kind] = [
    "delay",
    "drip",
    "status_500",
    "status_503",
    "cut",
    "cut_chunked",
    "flip",
    "reset",
]
PUT_FAULTS: list[Kind] = ["delay", "status_500", "reset", "lost_answer", "flip_request"]
DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


def seconds_of(kind: Kind) -> float:
    return 0.01 if kind == "drip" else SLOW


@pytest.mark.parametrize("kind", READ_FAULTS)
def test_a_read_spoiled_once_is_read_again(
    kind: Kind, store: S3ObjectStore, proxy: FaultProxy, faults: Any, tmp_path: Path
) -> None:
    store.put("a", DATA)
    for times in (1, 2):
        fault = proxy.spoil(kind, path="/a$", times=times, seconds=seconds_of(kind))
        store.get_file("a", tmp_path / "a", sha256=DIGEST)
        assert (tmp_path / "a").read_bytes() == DATA
        assert fault.hits == times
        proxy.heal()
    proxy.spoil(kind, path="/a$", times=1, seconds=seconds_of(kind))
    assert store.get("a", sha256=DIGEST) == DATA
    assert [ending for _, _, ending in faults] == ["retried"] * 4


@pytest.mark.parametrize("kind", READ_FAULTS)
def test_a_read_spoiled_for_good_is_a_clear_error(
    kind: Kind, store: S3ObjectStore, proxy: FaultProxy, faults: Any, tmp_path: Path
) -> None:
    store.put("a", DATA)
    fault = proxy.spoil(kind, path="/a$", seconds=seconds_of(kind))
    expected = ObjectDamaged if kind == "flip" else Unavailable
    with pytest.raises(expected, match=r"'a'.*(check|look|log|Restore)"):
        store.get_file("a", tmp_path / "a", sha256=DIGEST)
    with pytest.raises(expected):
        store.get("a", sha256=DIGEST)
    assert list(tmp_path.iterdir()) == [], "nothing half-fetched"
    assert fault.hits == 2 * PATIENCE.attempts
    assert [ending for _, _, ending in faults] == ["retried", "retried", "gave_up"] * 2
    proxy.heal()
    assert store.get("a", sha256=DIGEST) == DATA


@pytest.mark.parametrize("kind", ["cut", "cut_chunked", "reset", "drip"])
def test_half_a_body_is_noticed_without_a_digest(kind: Kind, store: S3ObjectStore, proxy: FaultProxy) -> None:
    store.put("a", DATA)
    proxy.spoil(kind, path="/a$", times=1, seconds=seconds_of(kind))
    assert store.get("a") == DATA
    proxy.spoil(kind, path="/a$", times=1, seconds=seconds_of(kind))
    assert store.get_range("a", 1000, 200_000) == DATA[1000:201_000]
    proxy.spoil(kind, path="/a$", seconds=seconds_of(kind))
    with pytest.raises(Unavailable):
        store.get_range("a", 0, 200_000)


@pytest.mark.parametrize("kind", PUT_FAULTS)
def test_a_put_spoiled_once_is_put_again(
    kind: Kind, store: S3ObjectStore, proxy: FaultProxy, faults: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    proxy.spoil(kind, method="PUT", path="/a$", times=1, seconds=SLOW)
    store.put("a", DATA)
    proxy.spoil(kind, method="PUT", path="/b$", times=1, seconds=SLOW)
    store.put_file("b", tmp_path / "file")
    assert store.get("a") == store.get("b") == DATA
    assert [(operation, ending) for operation, _, ending in faults] == [
        ("put", "retried"),
        ("put", "retried"),
    ]


@pytest.mark.parametrize("kind", ["status_500", "reset", "lost_answer"])
def test_a_large_file_is_put_in_parts_and_again(
    kind: Kind, store: S3ObjectStore, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedplate_store.objects.s3._SINGLE_PUT_BYTES", 1 << 20)
    large = os.urandom(6 << 20)
    (tmp_path / "file").write_bytes(large)
    fault = proxy.spoil(kind, method="PUT", path="/a.*partNumber=2", times=1)
    store.put_file("a", tmp_path / "file")
    proxy.spoil(kind, method="PUT", path="/b.*partNumber=2", times=1)
    store.put("b", large)
    assert fault.hits == 1
    assert store.get("a") == store.get("b") == large


@pytest.mark.parametrize("kind", ["delay", "status_500", "reset", "flip_request"])
def test_a_put_spoiled_for_good_is_a_clear_error(kind: Kind, store: S3ObjectStore, proxy: FaultProxy) -> None:
    proxy.spoil(kind, method="PUT", seconds=SLOW)
    with pytest.raises(Unavailable, match=r"'a'.*(check|log)"):
        store.put("a", DATA)
    proxy.heal()
    store.put("a", DATA)
    assert store.get("a") == DATA


@pytest.mark.parametrize("kind", ["delay", "status_500", "cut", "reset"])
def test_what_is_asked_about_objects_is_asked_again(
    kind: Kind, store: S3ObjectStore, proxy: FaultProxy
) -> None:
    store.put("folder/a", DATA)
    proxy.spoil(kind, method="GET", path="list-type", times=1, seconds=SLOW)
    assert list(store.list("folder/")) == ["folder/a"]
    if kind != "cut":  # these answers have no body
        proxy.spoil(kind, method="HEAD", times=1, seconds=SLOW)
        assert store.size("folder/a") == len(DATA)
        proxy.spoil(kind, method="HEAD", times=1, seconds=SLOW)
        assert store.modified_at("folder/a") is not None
        proxy.spoil(kind, method="DELETE", times=1, seconds=SLOW)
        store.delete("folder/a")
        assert store.size("folder/a") is None
    proxy.spoil(kind, method="GET", path="list-type", seconds=SLOW)
    with pytest.raises(Unavailable):
        list(store.list("folder/"))


def test_a_long_list_comes_in_pages(
    store: S3ObjectStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedplate_store.objects.s3._LIST_PAGE", 3)
    keys = {f"many/{number}" for number in range(7)}
    for key in keys:
        store.put(key, b"")
    listed = store.list("many/")
    first = [next(listed) for _ in range(3)]
    proxy.spoil("reset", path="list-type", times=1)
    rest = list(listed)
    assert set(first) | set(rest) == keys
    assert len(first) + len(rest) == len(keys), "none twice"
