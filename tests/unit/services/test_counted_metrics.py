"""What is counted, under which name and labels."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bedplate.wire.registry import FileManifest
from bedplate_registry.checkpoint_cache import CheckpointCache, CheckpointFile
from bedplate_registry.principals import Principal
from bedplate_services.auth import Authenticator, digest
from bedplate_services.metrics import PrometheusMetrics
from bedplate_store.mapping import local_file, sha256_file
from bedplate_store.objects import MemoryObjectStore, ObservedObjects


def values(metrics: PrometheusMetrics, name: str) -> dict[str, float]:
    """Value by the rest of the line: ``{labels}``."""
    lines = metrics.render()[0].decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith(f"bedplate_api_{name}{{"))
    return {line.removeprefix(f"bedplate_api_{name}"): float(value) for line, _, value in found}


def test_faults_are_counted_by_operation_reason_and_ending() -> None:
    metrics = PrometheusMetrics("api")
    metrics.object_fault("get", "timeout", "retried")
    labels = '{ending="retried",operation="get",reason="timeout"}'
    assert values(metrics, "object_store_faults_total") == {labels: 1}


def test_hits_of_the_token_cache_come_along_with_the_next_miss() -> None:
    metrics, time = PrometheusMetrics("api"), [0.0]
    authenticator = Authenticator(
        lambda _secret: Principal("feed-team", "member", 1),
        ttl_seconds=2.0,
        clock=lambda: time[0],
        on_use=metrics.cache,
    )
    asyncio.run(authenticator("good"))
    assert authenticator.knows(digest("good"))
    assert authenticator.remembered("good") is not None
    assert not authenticator.knows(digest("bad"))
    time[0] = 2.0
    asyncio.run(authenticator("good"))
    assert values(metrics, "cache_requests_total") == {
        '{cache="tokens",result="hit"}': 2,
        '{cache="tokens",result="miss"}': 2,
    }


def test_files_of_the_object_store_are_counted_when_opened_and_when_fetched(tmp_path: Path) -> None:
    metrics = PrometheusMetrics("api")
    objects = ObservedObjects(MemoryObjectStore(), metrics)
    (tmp_path / "file").write_bytes(b"vectors")
    sha256 = sha256_file(tmp_path / "file")
    objects.put_file("segments/a/vectors", tmp_path / "file")
    for _ in range(3):
        path = local_file(objects, "segments/a/vectors", tmp_path / "cache", bytes_=7, sha256=sha256)
    path.write_bytes(b"damaged")
    local_file(objects, "segments/a/vectors", tmp_path / "cache", bytes_=7, sha256=sha256)
    assert values(metrics, "cache_requests_total") == {
        '{cache="segments",result="hit"}': 2,
        '{cache="segments",result="miss"}': 2,
    }
    assert values(metrics, "cache_fetched_bytes_total") == {'{cache="segments"}': 14}


def test_checkpoints_are_counted_when_they_are_here_and_when_they_are_not(tmp_path: Path) -> None:
    metrics, objects = PrometheusMetrics("api"), MemoryObjectStore()
    objects.put("checkpoints/weights", b"weights")
    (tmp_path / "file").write_bytes(b"weights")
    manifest = FileManifest(name="weights", sha256=sha256_file(tmp_path / "file"), bytes=7)
    cache = CheckpointCache(objects, tmp_path / "cache", metrics.cache)
    for _ in range(2):
        cache.fetch("core@1", "d" * 64, [CheckpointFile("checkpoints/weights", manifest)])
    assert values(metrics, "cache_requests_total") == {
        '{cache="checkpoints",result="hit"}': 1,
        '{cache="checkpoints",result="miss"}': 1,
    }


def test_rows_without_a_vector_are_counted_beside_the_others() -> None:
    metrics = PrometheusMetrics("api")
    metrics.rows("/lookup", 100, 0)
    assert values(metrics, "rows_missing_total") == {}
    metrics.rows("/lookup", 100, 7)
    assert values(metrics, "rows_total") == {'{route="/lookup"}': 200}
    assert values(metrics, "rows_missing_total") == {'{route="/lookup"}': 7}


def test_a_space_that_is_not_measured_any_more_is_not_told_any_more() -> None:
    metrics = PrometheusMetrics("api")
    metrics.coverage({("core@1/item", "item"): 0.5, ("core@1/user", "user"): 0.25})
    metrics.coverage({("core@2/item", "item"): 1.0})
    assert values(metrics, "space_coverage_ratio") == {'{entity="item",space="core@2/item"}': 1.0}
