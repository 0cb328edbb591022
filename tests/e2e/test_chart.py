"""A try-out of the chart as Helm renders it, its commands run as processes on real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_client
from sqlalchemy import select
from tests.chart.helm_binary import NoHelm, find_helm
from tests.chart.kubelet import PATIENCE_SECONDS, Node, RunningPod
from tests.chart.manifests import PodOf, pods
from tests.chart.rendering import Helm, Manifest, one
from tests.engines import S3, PostgreSQL, Redis
from tests.engines.engine import PrivateServer, free_port
from tests.engines.s3 import free_ports
from tests.waiting import wait_until

from bedplate import Client
from bedplate.errors import Unavailable
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_services import round_trip
from bedplate_store.database import Database
from bedplate_store.objects import S3ObjectStore
from bedplate_store.tables.records import LoggedRequestRow

pytestmark = pytest.mark.timeout(900)
STOPPED = (0, -15)
"""Ended by itself after SIGTERM, or by SIGTERM once everything was closed."""


NODES = {0: "no store node", 1: "a store node"}
ONCE = pytest.mark.parametrize("store_nodes", [0], ids=NODES.get, indirect=True, scope="module")
"""For what a store node has no part in."""


@pytest.fixture(scope="module", params=NODES, ids=NODES.get)
def store_nodes(request: pytest.FixtureRequest) -> int:
    nodes: int = request.param
    return nodes


@pytest.fixture(scope="module")
def manifests(store_nodes: int) -> list[Manifest]:
    """Without a store node they are those of ``helm install`` with no values."""
    try:
        helm = Helm(find_helm())
    except NoHelm as error:
        pytest.skip(f"NO HELM 4: {error}")
    return helm.render(sets={"store.replicas": store_nodes} if store_nodes else None)


def bundled(manifests: list[Manifest], name: str) -> dict[str, Any]:
    container: dict[str, Any] = one(manifests, "StatefulSet", f"bedplate-{name}")["spec"]["template"]["spec"][
        "containers"
    ][0]
    return container


@contextmanager
def broker(manifests: list[Manifest]) -> Iterator[str]:
    """The bundled broker's configuration on the Redis or Valkey of this machine; its address."""
    place = Redis.where()
    if place is None or "://" in place:
        pytest.skip(str(Redis.absent()))
    written = one(manifests, "Secret", "bedplate-broker")["stringData"]
    port = free_port()
    url = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", written["url"])
    client = redis_client.Redis.from_url(url)
    server = PrivateServer("broker", client.ping, redis_client.ConnectionError)
    configuration = server.folder / "valkey.conf"
    configuration.write_text(written["valkey.conf"].replace("/data", str(server.folder)))
    try:
        server.start([place, configuration, "--port", str(port), "--bind", "127.0.0.1"])
        yield f"127.0.0.1:{port}"
    finally:
        server.remove()


@contextmanager
def objects(manifests: list[Manifest]) -> Iterator[str]:
    """The bundled S3 server with its own arguments; its address."""
    place = S3.where()
    if place is None or "://" in place:
        pytest.skip(str(S3.absent()))
    secret = one(manifests, "Secret", "bedplate-s3")["stringData"]
    master, volume, filer, port = free_ports(4)
    endpoint = f"http://127.0.0.1:{port}"
    store = S3ObjectStore(endpoint, "ready", access_key=secret["access-key"], secret_key=secret["secret-key"])

    def put_once() -> None:
        """Its port opens seconds before it takes puts."""
        store.ensure_bucket()
        store.put("ready", b"1")

    server = PrivateServer("objects", put_once, (OSError, Unavailable))
    (server.folder / "s3.json").write_text(secret["s3.json"])
    given = bundled(manifests, "s3")["args"]
    replaced = {"-dir=/data": f"-dir={server.folder}", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    arguments = [replaced.get(each, each) for each in given if not each.startswith("-s3.port=")]
    arguments = [each.replace("/etc/bedplate-s3", str(server.folder)) for each in arguments]
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={port}"]
    try:
        server.start([place, *arguments, *ports])
        yield f"127.0.0.1:{port}"
    finally:
        server.remove()


@dataclass
class TryOut:
    """What the manifests make, running here."""

    node: Node
    database: str
    services: dict[str, RunningPod]
    job: RunningPod
    test: RunningPod

    def url(self, name: str) -> str:
        """Of a service, as clients in the cluster write it, here."""
        port = {"api": 8700, "inference": 8701}[name]
        return self.node.here(f"http://bedplate-{name}.bedplate-test.svc:{port}")

    @property
    def all(self) -> list[RunningPod]:
        return [*self.services.values(), self.job, self.test]


def lay_out(manifests: list[Manifest], node: Node, database: str) -> TryOut:
    """Every pod but the bundled servers', one replica each, and the addresses by which they meet."""
    found = {pod.component: pod for pod in pods(manifests) if pod.ours}

    def one_of(pod: PodOf, suffix: str = "") -> RunningPod:
        return RunningPod(node, pod, f"bedplate-{pod.component}{suffix}")

    job, test = one_of(found.pop("migrations")), one_of(found.pop("test"))
    services = {name: one_of(pod, "-0" if name == "store" else "") for name, pod in found.items()}
    space = "bedplate-test.svc"
    for name, pod in services.items():
        for there, here in pod.main[0].ports.items():
            node.addresses[f"bedplate-{name}.{space}:{there}"] = f"127.0.0.1:{here}"
            node.addresses[f"{pod.name}:{there}"] = f"127.0.0.1:{here}"
    return TryOut(node, database, services, job, test)


@pytest.fixture(scope="module")
def installed(
    manifests: list[Manifest], postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TryOut]:
    """Everything is applied at once, as Helm does: pods wait for the Job, and the Job for nobody."""
    space = "bedplate-test.svc"
    with ExitStack() as stack:
        node = Node(manifests, tmp_path_factory.mktemp("node"))
        database = stack.enter_context(postgresql.database())
        secret = one(manifests, "Secret", "bedplate-database")["stringData"]
        node.addresses[secret["registry-url"]] = database
        node.addresses[f"bedplate-valkey.{space}:6379"] = stack.enter_context(broker(manifests))
        node.addresses[f"bedplate-s3.{space}:8333"] = stack.enter_context(objects(manifests))
        tryout = lay_out(manifests, node, database)
        stack.callback(lambda: [pod.kill() for pod in tryout.all])
        waiting = [container for pod in tryout.services.values() for container in pod.before]
        for container in waiting:
            container.start()
        assert all(container.running() for container in waiting), "a pod did not wait for the migrations"
        tryout.job.run_to_its_end()
        for container in waiting:
            assert container.wait(PATIENCE_SECONDS) == 0, container.log()
        for pod in tryout.services.values():
            pod.start()
        for pod in tryout.services.values():
            pod.wait_until_started()
        yield tryout


def test_helm_test_passes(installed: TryOut) -> None:
    installed.test.run_to_its_end()
    assert "every answer was right" in installed.test.main[0].log()


@ONCE
def test_what_is_served_reaches_the_log_through_the_sealer(
    installed: TryOut, manifests: list[Manifest], tmp_path: Path
) -> None:
    """The reconciler's pod cannot see the spool of the inference service's."""
    token = one(manifests, "Secret", "bedplate-admin")["stringData"]["token"]
    with Client(installed.url("api"), token) as client:
        save_checkpoint(tmp_path, round_trip.train(round_trip.events()))
        version = client.versions.publish(round_trip.NAME, tmp_path)
        client.aliases.move(round_trip.NAME, "served", version.version, force=True)
    request = {
        "user": round_trip.USERS[0],
        "surface": round_trip.NAME,
        "candidates": ["a"],
        "request_id": "r-1",
    }
    wait_until(lambda: ask_inference(installed, token, request) == httpx.codes.OK)
    wait_until(lambda: logged_requests(installed.database) == ["r-1"])


def ask_inference(installed: TryOut, token: str, request: dict[str, Any]) -> int:
    url = f"{installed.url('inference')}/v1/tae"
    answer = httpx.post(url, json=request, headers={"authorization": f"Bearer {token}"}, timeout=30.0)
    return answer.status_code


def logged_requests(url: str) -> list[str]:
    database = Database(url)
    try:
        with database.read() as session:
            return list(session.scalars(select(LoggedRequestRow.request_id)))
    finally:
        database.close()


def test_every_probe_says_yes(installed: TryOut, store_nodes: int) -> None:
    assert ("store" in installed.services) == (store_nodes > 0)
    for pod in installed.services.values():
        for container in [*pod.sidecars, *pod.main]:
            assert container.probe("liveness"), f"{container.name}: {container.log()}"
    for name in {"api", "inference", "store"} & installed.services.keys():
        assert installed.services[name].main[0].probe("readiness")


def test_the_job_runs_again_at_an_upgrade_and_changes_nothing(installed: TryOut, store_nodes: int) -> None:
    installed.job.run_to_its_end()
    assigned = "all shards are assigned to bedplate-store-0" in installed.job.main[0].log()
    assert assigned == (store_nodes > 0)


@ONCE
def test_clients_are_told_addresses_in_the_cluster(installed: TryOut, manifests: list[Manifest]) -> None:
    token = one(manifests, "Secret", "bedplate-admin")["stringData"]["token"]
    with Client(installed.url("api"), token) as client:
        assert client.whoami().role == "admin"
        assert client.endpoints().inference == installed.url("inference")
        assert [foundation.name for foundation in client.foundations.list()] == [round_trip.NAME]


def test_they_end_by_themselves_within_their_grace(installed: TryOut) -> None:
    """Last: nothing of this try-out runs after it."""
    for pod in installed.services.values():
        pod.stop(lambda status: status in STOPPED)
