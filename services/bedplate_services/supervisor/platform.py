"""The platform on one machine, started and stopped from Python: ``bedplate up``, tests and benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from bedplate_services.supervisor.children import ChildFailed, ChildSpecification, RestartPolicy
from bedplate_services.supervisor.data_directory import DataDirectory, DirectoryLock, write_private
from bedplate_services.supervisor.engines import Engines
from bedplate_services.supervisor.first_start import assign_shards, ensure_admin_token, migrate, write_client
from bedplate_services.supervisor.ports import choose_ports
from bedplate_services.supervisor.supervision import Report, Supervision

READY_POLL_SECONDS = 0.1
WORKER_NICENESS = 10
_METRICS_PORT = "BEDPLATE_METRICS_PORT"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Platform:
    """All of Bedplate on one data directory: an API, an inference service, workers and a reconciler.

    Args:
        data_dir: None: BEDPLATE_DATA, or ``~/.bedplate``.
        port, inference_port: 0: any free port.
        api_processes: how many API processes share the port.
        store_nodes: how many processes serve the shards of spaces that are cut into several; 0: the API does.
        workers: how many processes do jobs, one partition each at a time.
        worker_niceness: 0 to 19; the worker's jobs take hours or seconds, requests wait for milliseconds.
        environment: further settings for the children, e.g. ``{"BEDPLATE_LEASE_SECONDS": "5"}``. Those that
            name engines (BEDPLATE_BROKER_URL ...) replace the embedded ones; this process's own never do.
        report: told in words when a child is restarted or had to be killed.

    Attributes:
        url, inference_url: where the services answer, once started. ``client_url`` is what a Client wants.
        token: the admin token.
        engines: what it runs on.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        inference_port: int = 0,
        api_processes: int = 1,
        store_nodes: int = 0,
        workers: int = 1,
        worker_niceness: int = WORKER_NICENESS,
        environment: Mapping[str, str] | None = None,
        policy: Callable[[], RestartPolicy] = RestartPolicy,
        report: Report = lambda _message: None,
    ) -> None:
        self.directory = DataDirectory.at(data_dir)
        self.engines = Engines.of(self.directory, environment or {})
        self.url = ""
        self.inference_url = ""
        self.token = ""
        self._host = host
        self._ports = (port, inference_port)
        self._api_processes = api_processes
        self._store_nodes = {f"node-{number}": 0 for number in range(1, store_nodes + 1)}
        self._workers = ["worker", *(f"worker-{number}" for number in range(2, workers + 1))]
        self._worker_niceness = worker_niceness
        self._environment = dict(environment or {})
        self._policy = policy
        self._report = report
        self._lock = DirectoryLock(self.directory)
        self._supervision: Supervision | None = None

    @property
    def client_url(self) -> str:
        return self.url

    @property
    def names(self) -> tuple[str, ...]:
        """The children's names, in the order in which they start."""
        return tuple(child.name for child in self._specifications())

    def start(
        self, *, timeout_seconds: float = 120.0, became_ready: Callable[[str], None] = lambda _name: None
    ) -> Self:
        """Start everything and wait until all of it works; on failure nothing is left running.

        Args:
            became_ready: called with each child's name.

        Raises:
            DataDirectoryInUse, PortInUse: something else has them.
            ChildFailed: a child crashed again and again, or was not ready in time.
            Unavailable: an engine that was named cannot be reached.
        """
        self.directory.create()
        self._lock.acquire()
        try:
            self.directory.processes.unlink(missing_ok=True)
            self._empty_metrics()
            port, inference_port = self._claim_ports()
            self.engines.ensure_bucket({**os.environ, **self._environment})
            migrate(self.engines)
            self.token = ensure_admin_token(self.directory, self.engines, datetime.now(UTC))
            if self._store_nodes:
                assign_shards(self.engines, list(self._store_nodes), datetime.now(UTC))
            self._supervision = Supervision(
                self._specifications(),
                environment=self._child_environment(port, inference_port),
                logs=self.directory.logs,
                policy=self._policy,
                report=self._report,
                changed=self._record_processes,
            )
            self._supervision.start()
            self._wait_until_ready(self._supervision, timeout_seconds, became_ready)
            write_client(self.directory, self.url, self.token)
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until stopped; False when the time ran out first. Raises ChildFailed."""
        return self._started().wait(timeout_seconds)

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """Stop all children, gracefully if they let us; safe to call twice."""
        if self._supervision is not None:
            killed = self._supervision.stop(grace_seconds)
            if killed:
                self._report(f"{', '.join(killed)} did not stop within {grace_seconds:g} s and was killed")
            self._supervision = None
            self.directory.processes.unlink(missing_ok=True)
        self._lock.release()

    def pids(self) -> dict[str, int]:
        """Process ids of the living children, by name."""
        return self._started().pids()

    def _started(self) -> Supervision:
        if self._supervision is None:
            raise RuntimeError("the platform is not started")
        return self._supervision

    def _claim_ports(self) -> tuple[int, int]:
        wanted = list(zip(self._ports, ("--port", "--inference-port"), strict=True))
        wanted += [(0, "--store-nodes") for _ in self._store_nodes]
        port, inference_port, *node_ports = choose_ports(self._host, wanted)
        self._store_nodes = dict(zip(self._store_nodes, node_ports, strict=True))
        self.url = f"http://{self._shown_host}:{port}"
        self.inference_url = f"http://{self._shown_host}:{inference_port}"
        return port, inference_port

    def _specifications(self) -> list[ChildSpecification]:
        reconciler = self.directory.ready / "reconciler"
        broker = {"BEDPLATE_BROKER_URL": self.engines.broker}
        return [
            *self._apis(),
            *self._nodes(),
            ChildSpecification(
                "inference", "bedplate_services.inference", ready_url=f"{self.inference_url}/readyz"
            ),
            *(
                ChildSpecification(
                    name,
                    "bedplate_workers",
                    ("--ready-file", str(self.directory.ready / name)),
                    {**broker, **self._worker_metrics(number)},
                    ready_file=self.directory.ready / name,
                    niceness=self._worker_niceness,
                )
                for number, name in enumerate(self._workers, start=1)
            ),
            ChildSpecification(
                "reconciler",
                "bedplate_workers.reconciler",
                ("--ready-file", str(reconciler)),
                broker,
                ready_file=reconciler,
            ),
        ]

    def _worker_metrics(self, number: int) -> dict[str, str]:
        """The reconciler has the port that was set for it: the workers take the next ones."""
        port = {**os.environ, **self._environment}.get(_METRICS_PORT, "")
        return {_METRICS_PORT: str(int(port) + number)} if port.isdigit() and port != "0" else {}

    def _apis(self) -> list[ChildSpecification]:
        if self._api_processes == 1:
            return [ChildSpecification("api", "bedplate_services.api", ready_url=f"{self.url}/readyz")]
        environment = {
            "BEDPLATE_API_PROCESSES": str(self._api_processes),
            "PROMETHEUS_MULTIPROC_DIR": str(self.directory.metrics),
            "OMP_NUM_THREADS": self._share_of_cores(self._api_processes),
        }
        names = ["api", *(f"api-{number}" for number in range(2, self._api_processes + 1))]
        # A URL would be answered by any of them.
        files = [self.directory.ready / name for name in names]
        return [
            ChildSpecification(
                name, "bedplate_services.api", ("--ready-file", str(file)), environment, ready_file=file
            )
            for name, file in zip(names, files, strict=True)
        ]

    def _nodes(self) -> list[ChildSpecification]:
        return [
            ChildSpecification(
                f"store-{name}",
                "bedplate_services.shards.node",
                environment={
                    "BEDPLATE_STORE_NODE": name,
                    "BEDPLATE_STORE_NODE_HOST": self._host,
                    "BEDPLATE_STORE_NODE_PORT": str(port),
                    "OMP_NUM_THREADS": self._share_of_cores(len(self._store_nodes)),
                },
                ready_url=f"http://{self._shown_host}:{port}/readyz",
            )
            for name, port in self._store_nodes.items()
        ]

    @property
    def _shown_host(self) -> str:
        return f"[{self._host}]" if ":" in self._host else self._host

    def _share_of_cores(self, processes: int) -> str:
        """By how many threads one of so many processes searches."""
        cores = max(1, (os.cpu_count() or 1) // processes)
        return os.environ.get("OMP_NUM_THREADS", str(cores))

    def _empty_metrics(self) -> None:
        """Counts begin with the platform; the files of processes that ended are only then removed."""
        shutil.rmtree(self.directory.metrics, ignore_errors=True)
        self.directory.metrics.mkdir(mode=0o700)

    def _child_environment(self, port: int, inference_port: int) -> dict[str, str]:
        directory, engines = self.directory, self.engines
        own = {
            "REGISTRY_DATABASE_URL": engines.registry_database,
            "STORE_DATABASE_URL": engines.store_database,
            "OBJECTS_URL": engines.objects,
            "CACHE_DIR": str(directory.cache),
            "SPOOL_DIR": str(directory.spool),
            "HOST": self._host,
            "API_PROCESSES": "1",
            "DRAIN_SECONDS": "0",  # nobody else answers on these ports
            "PORT": str(port),
            "INFERENCE_HOST": self._host,
            "INFERENCE_PORT": str(inference_port),
            "INFERENCE_URL": self.inference_url,
            "PUBLIC_URL": self.url,
            # Who reaches a loopback address sees this machine's files, as far as their modes let it.
            "LOCAL_PATHS": str(self._host in _LOOPBACK).lower(),
            "SIGNING_KEY": directory.read_or_make_secret(directory.signing_key),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "BEDPLATE_BROKER_URL"}
        # The services send to a server themselves. In a folder the reconciler sends all: one writer fewer.
        if "broker" in engines.chosen:
            own["BROKER_URL"] = engines.broker
        if self._store_nodes:
            own["SHARD_SECRET"] = directory.read_or_make_secret(directory.shard_secret)
        return {
            "GOMP_SPINCOUNT": "10000",  # four processes share the cores: who waits must not spin for long
            **inherited,
            **{f"BEDPLATE_{name}": value for name, value in own.items()},
            **self._environment,
        }

    def _record_processes(self, pids: dict[str, int]) -> None:
        document = {
            "supervisor": os.getpid(),
            "children": pids,
            "url": self.url,
            "inference_url": self.inference_url,
        }
        write_private(self.directory.processes, json.dumps(document, indent=2) + "\n")

    def _wait_until_ready(
        self, supervision: Supervision, timeout_seconds: float, became_ready: Callable[[str], None]
    ) -> None:
        deadline = time.monotonic() + timeout_seconds
        waiting = [child.specification for child in supervision.children.values()]
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while waiting:
                for specification in [one for one in waiting if _is_ready(client, one)]:
                    waiting.remove(specification)
                    became_ready(specification.name)
                if time.monotonic() >= deadline:
                    raise _not_ready(supervision, waiting[0], timeout_seconds)
                supervision.wait(READY_POLL_SECONDS if waiting else 0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _is_ready(client: httpx.Client, specification: ChildSpecification) -> bool:
    if specification.ready_file is not None:
        return specification.ready_file.exists()
    if specification.ready_url is None:
        raise RuntimeError(f"{specification.name} has neither ready_url nor ready_file")
    try:
        return client.get(specification.ready_url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # not listening yet


def _not_ready(supervision: Supervision, waiting: ChildSpecification, timeout_seconds: float) -> ChildFailed:
    child = supervision.children[waiting.name]
    return ChildFailed(
        f"{waiting.name} was not ready within {timeout_seconds:g} s. "
        f"The end of {child.log}:\n{child.log_tail()}",
        child=waiting.name,
    )
