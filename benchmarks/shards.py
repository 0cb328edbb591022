"""A space whose shards lie with 1, 2 and 4 store nodes, against one process that has it whole.

On one machine this tells what the fan-out costs, not what more machines bring: all processes share its cores.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bedplate import Client
from bedplate.errors import InternalError, SpaceNotReady
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_services.supervisor.platform import Platform
from bedplate_store import snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.objects import open_object_store
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.load import Target, wire
from benchmarks.memory import resident_bytes
from benchmarks.processor_time import Meter
from benchmarks.vectors import clustered, gapped_keys
from benchmarks.workbench import Workbench

NAME = "shards"
NODES = (1, 2, 4)
SHARDS = 8
CONNECTIONS = (1, 8)
DIM = 128
WHOLE, CUT = "bench@1/whole", "bench@1/cut"
_KEYS = 100
_BODIES = 256
_PATIENCE_SECONDS = 60.0


def run(bench: Workbench) -> list[Figure]:
    """Lookups of 100 keys and single searches a second, as a share of what one process answers."""
    rows = bench.scale.rows // 5
    keys = gapped_keys(rows)
    vectors, queries = clustered(rows, _BODIES, DIM)
    figures = []
    for nodes in NODES:
        with Platform(bench.folder / "shards", store_nodes=nodes, report=bench.say) as platform:
            if nodes == NODES[0]:
                bench.say(f"shards: publishing {rows:,} x {DIM}, whole and in {SHARDS} shards ...")
                _publish(bench, platform, WHOLE, keys, vectors, 1)
                _publish(bench, platform, CUT, keys, vectors, SHARDS)
            _check(platform, keys, vectors)
            figures += _measure(bench, platform, nodes, keys, queries)
    return figures


def _publish(
    bench: Workbench,
    platform: Platform,
    reference: str,
    keys: NDArray[np.int64],
    vectors: NDArray[np.float32],
    shards: int,
) -> None:
    key, now = SpaceKey.parse(reference), datetime.now(UTC)
    database = Database(platform.directory.store_database_url)
    objects = open_object_store(platform.directory.objects_url)
    signature = SpaceSignature(dim=DIM, dtype="float32", key_type="int64")
    with database.write() as session:
        spaces.ensure_space(session, **key._asdict(), signature=signature, team="bench", now=now)
    segment = write_segment(objects, keys=keys, vectors=vectors, dtype="float32", key_type="int64")
    wanted = IndexSpecification(kind="ivf", shards=shards)
    prepared = snapshots.prepare(database, objects, bench.cache, key, [segment.digest], wanted)
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=now)
    database.close()


def _check(platform: Platform, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """A wrong answer is not worth measuring."""
    deadline = datetime.now(UTC).timestamp() + _PATIENCE_SECONDS
    with Client(platform.url, platform.token) as client:
        while not _all_answer(client, vectors[:1]):
            if datetime.now(UTC).timestamp() > deadline:
                raise InternalError("the store nodes did not open their shards in time")
        one, cut = (client.spaces.search(space, vectors[:200:2], k=10) for space in (WHOLE, CUT))
        if not (cut.scores >= one.scores - 1e-6).all():
            raise InternalError("shards found worse rows than one index")
        found = client.spaces.lookup(CUT, keys[::1000])
        if not np.array_equal(found.vectors, vectors[::1000]):
            raise InternalError("a lookup did not give the vectors that were written")


def _all_answer(client: Client, query: NDArray[np.float32]) -> bool:
    try:
        return client.spaces.search(CUT, query, allow_partial=True).shards == (SHARDS, SHARDS)
    except SpaceNotReady:
        return False


def _measure(
    bench: Workbench,
    platform: Platform,
    nodes: int,
    keys: NDArray[np.int64],
    queries: NDArray[np.float32],
) -> list[Figure]:
    random = np.random.default_rng(nodes)
    asked = [keys[random.integers(0, len(keys), _KEYS)].astype("<i8").tobytes() for _ in range(_BODIES)]
    work = {
        f"{_KEYS} keys x {DIM}": ("lookup", asked),
        "search top-10": ("search?k=10", [query.astype("<f4").tobytes() for query in queries]),
    }
    figures = []
    for what, (verb, bodies) in work.items():
        for connections in CONNECTIONS:
            requests = bench.scale.of(1500, 200) * min(connections, 4)
            cut, whole = (
                _Shot(bench, platform, _target(platform, space, verb, bodies), connections, requests)
                for space in (CUT, WHOLE)
            )
            pairs = interleave(bench.scale.rounds, lambda _, shot=cut: shot(), lambda _, shot=whole: shot())
            name = f"{what}, {SHARDS} shards, {nodes} node(s), {connections} connection(s)"
            details = {
                **_memory(platform),
                "processor_us": cut.api.microseconds + sum(node.microseconds for node in cut.nodes),
                "api_processor_us": cut.api.microseconds,
                "limit_processor_us": whole.api.microseconds,
            }
            figures.append(pairs.figure(NAME, name, "requests/s", "one process, one index", details))
    return figures


class _Shot:
    """Fires one round of requests and measures the processor time that the API and the nodes spend on one."""

    def __init__(
        self, bench: Workbench, platform: Platform, target: Target, connections: int, requests: int
    ) -> None:
        pids = platform.pids()
        self.api = Meter(pids["api"], requests)
        self.nodes = [Meter(pid, requests) for name, pid in pids.items() if name.startswith("store-")]
        self._fire = lambda: bench.load.fire(target, connections=connections, requests=requests)

    def __call__(self) -> Sample:
        fire = self._fire
        for meter in (self.api, *self.nodes):
            fire = partial(meter.round, fire)
        return fire()


def _target(platform: Platform, space: str, verb: str, bodies: list[bytes]) -> Target:
    address = urlsplit(platform.url)
    wires = [wire(f"/v1/spaces/{space}/{verb}", body, token=platform.token) for body in bodies]
    return Target(address.hostname or "", address.port or 0, wires)


def _memory(platform: Platform) -> dict[str, float]:
    """Pages of files that a node has mapped, in the mean, and that the API has, which serves the whole."""
    pids = platform.pids()
    nodes = [resident_bytes(pid)["mapped"] for name, pid in pids.items() if name.startswith("store-")]
    return {
        "node_mapped_mib": float(np.mean(nodes)) / 2**20,
        "limit_mapped_mib": resident_bytes(pids["api"])["mapped"] / 2**20,
    }
