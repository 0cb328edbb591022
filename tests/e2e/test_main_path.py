"""The main path as a user walks it: up, register, events, embed, snapshot, lookup, search; on all engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate import AsyncClient, Client
from bedplate.errors import NotFound
from bedplate.wire.store import EmbedRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_services.supervisor.platform import Platform

from .conftest import AS_OF


@pytest.fixture(
    scope="module",
    params=["embedded_platform", "platform_on_redis", "platform_on_rabbitmq"],
    ids=["files", "postgresql-redis-s3", "postgresql-rabbitmq-s3"],
)
def platform(request: pytest.FixtureRequest) -> Platform:
    found: Platform = request.getfixturevalue(request.param)
    return found


def test_embedded_items_are_what_the_model_gives_and_can_be_searched(
    client: Client, world: Any, embed: Callable[..., str]
) -> None:
    job = client.jobs.watch(embed(client, "core@1/item"), poll_seconds=0.05, timeout_seconds=120)
    assert [stage.stage for stage in job.progress] == ["embed", "merge", "assemble", "publish"]
    assert all(stage.done == stage.total >= len(world.keys) for stage in job.progress)
    assert job.progress[0].total == len(world.keys)
    expected = _vectors(world.checkpoints[0], world)
    found = client.spaces.lookup("core@1/item", [*world.keys, "no-such-item"])
    assert found.version == "core@1"
    assert found.found.tolist() == [True] * len(world.keys) + [False]
    # The space stores float16, whose steps below 1 are 2^-11.
    np.testing.assert_allclose(found.vectors[:-1].astype(np.float32), expected, atol=2**-11, rtol=0)

    answer = client.spaces.search("core@1/item", expected[:20], k=10)
    exact = np.argsort(-(expected[:20] @ expected.T), axis=1)[:, :10]
    wanted = [{world.keys[row] for row in rows} for rows in exact]
    assert (
        np.mean([len(set(hits) & want) / 10 for hits, want in zip(answer.keys, wanted, strict=True)]) > 0.95
    )


def test_the_snapshot_tells_how_it_was_made(client: Client, world: Any, embed: Callable[..., str]) -> None:
    job = embed(client, "core@2/item", partitions=3)
    client.jobs.watch(job, poll_seconds=0.05, timeout_seconds=120)
    (snapshot,) = [each for each in client.spaces.snapshots("core@2/item") if each.job == job]
    assert snapshot.rows == len(world.keys)
    assert snapshot.recall_at_10 is not None
    assert snapshot.recall_at_10 >= 0.95


def test_users_are_embedded_from_their_timelines(
    client: Client, world: Any, embed: Callable[..., str]
) -> None:
    client.jobs.watch(embed(client, "core@1/user", partitions=4), poll_seconds=0.05, timeout_seconds=120)
    found = client.spaces.lookup("core@1/user", ["user-0", "user-149", "user-150"])
    assert found.found.tolist() == [True, True, False]
    np.testing.assert_allclose(np.linalg.norm(found.vectors[:2].astype(np.float64), axis=1), 1.0, atol=1e-3)


def _vectors(checkpoint: Path, world: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return FoundationRuntime.load(checkpoint).embed_items(world.keys)


def test_the_asynchronous_client_does_the_same_on_a_real_platform(
    platform: Platform, client: Client, world: Any, embed: Callable[..., str], tmp_path: Path
) -> None:
    """Its own transport, streaming and retries, against real sockets; the answers are the other client's."""

    async def walk() -> dict[str, Any]:
        async with AsyncClient(platform.client_url, platform.token) as there:
            job = await there.spaces.embed("core@1/item", EmbedRequest(as_of=AS_OF, partitions=3))
            ended = await there.jobs.watch(job, poll_seconds=0.05, timeout_seconds=120)
            lookups = [there.spaces.lookup("core@1/item", world.keys[start : start + 5]) for start in (0, 5)]
            searching = there.spaces.search("core@1/item", keys=world.keys[:2], k=3)
            first, second, found = await asyncio.gather(*lookups, searching)
            with pytest.raises(NotFound):
                await there.spaces.lookup("core@99/item", world.keys[:1])
            return {
                "state": ended.state,
                "vectors": np.concatenate([first.vectors, second.vectors]),
                "hits": [list(keys) for keys in found.keys],
                "scan": len(await there.events.scan()),
                "version": await there.versions.download("core@1", tmp_path / "checkpoint"),
            }

    seen = asyncio.run(walk())
    assert seen["state"] == "succeeded"
    np.testing.assert_array_equal(
        seen["vectors"], client.spaces.lookup("core@1/item", world.keys[:10]).vectors
    )
    same = client.spaces.search("core@1/item", keys=world.keys[:2], k=3)
    assert seen["hits"] == [list(keys) for keys in same.keys]
    assert seen["scan"] == len(client.events.scan())
    for name in ("model.safetensors", "config.json", "signature.json"):
        assert (tmp_path / "checkpoint" / name).read_bytes() == (world.checkpoints[0] / name).read_bytes()
