"""Runs the pods of rendered manifests as processes of this machine: their commands, arguments, environment,
order, probes and ends, without a cluster.

What a kubelet and the cluster's network would do is done by rewriting: a service's address becomes the port
of its pod here, a mounted path becomes a folder, and what listens everywhere listens on loopback.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.chart.manifests import PodOf, of_kind, quantity
from tests.chart.rendering import Manifest
from tests.engines.engine import free_port

PATIENCE_SECONDS = 180.0
_VARIABLE = re.compile(r"\$\((\w+)\)")


@dataclass
class Node:
    """The machine that pods run on.

    Attributes:
        addresses: text of the manifests -> what it is here; longer texts first.
    """

    manifests: Sequence[Manifest]
    folder: Path
    addresses: dict[str, str] = field(default_factory=dict)

    def data(self, kind: str, name: str) -> dict[str, str]:
        """Of a ConfigMap or Secret."""
        (found,) = [one for one in of_kind(self.manifests, kind) if one["metadata"]["name"] == name]
        return {**found.get("data", {}), **found.get("stringData", {})}

    def here(self, text: str) -> str:
        for there in sorted(self.addresses, key=len, reverse=True):
            text = text.replace(there, self.addresses[there])
        return text


class Container:
    """One container of a pod, as a process."""

    def __init__(self, node: Node, pod: PodOf, pod_name: str, container: dict[str, Any]) -> None:
        self._node, self._pod, self._pod_name, self._spec = node, pod, pod_name, container
        self.name = f"{pod_name}/{container['name']}"
        self._folder = node.folder / pod_name
        self.ports = {port["containerPort"]: free_port() for port in container.get("ports", ())}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for mount in self._spec["volumeMounts"]:
            self._mounted(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "wb") as log:
            command = self._command([*self._spec["command"], *self._spec.get("args", ())])
            self._process = subprocess.Popen(
                command, env=self._environment(), stdout=log, stderr=log, cwd=self._folder
            )

    def run(self) -> None:
        """To its end, which must be a good one."""
        self.start()
        assert self.wait(PATIENCE_SECONDS) == 0, self.log()

    def running(self) -> bool:
        return self._started().poll() is None

    def wait(self, seconds: float) -> int:
        return self._started().wait(seconds)

    def stop(self, grace_seconds: float) -> int:
        """SIGTERM; its exit status. One that is still there after the grace is an error."""
        self._started().send_signal(signal.SIGTERM)
        return self.wait(grace_seconds)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def probe(self, kind: str) -> bool:
        """Whether the startup, readiness or liveness probe says yes now."""
        probe = self._spec[f"{kind}Probe"]
        if "exec" in probe:
            done = subprocess.run(
                self._command(probe["exec"]["command"]), env=self._environment(), capture_output=True
            )
            return done.returncode == 0
        (port,) = [one for one in self._spec["ports"] if one["name"] == probe["httpGet"]["port"]]
        url = f"http://127.0.0.1:{self.ports[port['containerPort']]}{probe['httpGet']['path']}"
        try:
            return httpx.get(url, timeout=5.0, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait_until_started(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.probe("startup"):
            assert self.running(), f"{self.name} has ended: {self.log()}"
            assert time.monotonic() < deadline, f"{self.name} did not start: {self.log()}"
            time.sleep(0.5)

    @property
    def log_path(self) -> Path:
        return self._folder / f"{self._spec['name']}.log"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def _command(self, given: Sequence[str]) -> list[str]:
        assert given[0] == "python"
        return [sys.executable, *given[1:]]

    def _mounted(self, path: str) -> Path:
        return self._folder / path.strip("/")

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self._spec.get("envFrom", ()):
            found |= self._node.data("ConfigMap", source["configMapRef"]["name"])
        for entry in self._spec.get("env", ()):
            found[entry["name"]] = self._value(entry, found)
        return {**os.environ, **{name: self._here(name, value) for name, value in found.items()}}

    def _value(self, entry: dict[str, Any], before: Mapping[str, str]) -> str:
        source = entry.get("valueFrom")
        if source is None:
            return _VARIABLE.sub(lambda match: before[match[1]], entry["value"])
        if reference := source.get("secretKeyRef"):
            return self._node.data("Secret", reference["name"])[reference["key"]]
        if reference := source.get("resourceFieldRef"):
            which, _, resource = reference["resource"].partition(".")
            asked = quantity(self._spec["resources"][which][resource]) / quantity(reference["divisor"])
            return str(-int(-asked // 1))
        assert source["fieldRef"]["fieldPath"] == "status.podIP"
        return self._pod_name  # which stands among the node's addresses

    def _here(self, name: str, value: str) -> str:
        if name.endswith("_PORT") and value.isdigit():
            return str(self.ports.get(int(value), value))
        if value == "0.0.0.0":
            return "127.0.0.1"
        for mount in self._spec["volumeMounts"]:
            path = mount["mountPath"]
            if value == path or value.startswith(f"{path}/"):
                return str(self._mounted(value))
        return self._node.here(value)


class RunningPod:
    """The containers of one replica, in Kubernetes' order."""

    def __init__(self, node: Node, pod: PodOf, name: str) -> None:
        self.pod, self.name = pod, name

        def made(containers: Sequence[dict[str, Any]]) -> list[Container]:
            return [Container(node, pod, name, one) for one in containers]

        init = pod.spec.get("initContainers", ())
        self.before = made([one for one in init if one.get("restartPolicy") != "Always"])
        self.sidecars = made([one for one in init if one.get("restartPolicy") == "Always"])
        self.main = made(pod.spec["containers"])

    @property
    def all(self) -> list[Container]:
        return [*self.before, *self.sidecars, *self.main]

    def run_to_its_end(self) -> None:
        """Of a Job or a test."""
        for container in [*self.before, *self.main]:
            container.run()

    def start(self) -> None:
        """Sidecars first; what comes before both has ended."""
        for container in [*self.sidecars, *self.main]:
            container.start()

    def wait_until_started(self) -> None:
        for container in [*self.sidecars, *self.main]:
            container.wait_until_started()

    def stop(self, allowed: Callable[[int], bool]) -> None:
        """Sidecars last, all within the pod's grace."""
        until = time.monotonic() + self.pod.spec["terminationGracePeriodSeconds"]
        for container in [*self.main, *reversed(self.sidecars)]:
            status = container.stop(max(0.0, until - time.monotonic()))
            assert allowed(status), f"{container.name} ended with {status}: {container.log()}"

    def kill(self) -> None:
        for container in self.all:
            container.kill()
