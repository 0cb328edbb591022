"""As much of a Kubernetes API server as Helm's ``lookup`` asks for: discovery, and Secrets by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

RELEASE = "bedplate"
KINDS = {
    "v1": ("ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "batch/v1": ("Job",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}
"""What a try-out makes, by group and version."""
Secrets = dict[tuple[str, str], Mapping[str, str]]
"""(namespace, name) -> data."""


@contextmanager
def api_server(secrets: Secrets, folder: Path, version: str) -> Iterator[Path]:
    """Serve these Secrets; the path of a kubeconfig that leads here."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answer(self.path.partition("?")[0], secrets, version)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(configuration(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(path: str, secrets: Secrets, version: str) -> tuple[int, dict[str, Any]]:
    """Status and document."""
    if path == "/version":
        major, minor = version.split(".")
        return 200, {"major": major, "minor": minor, "gitVersion": f"v{version}.0"}
    if path == "/api":
        return 200, {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [group(name) for name in KINDS if "/" in name]
        return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    served = path.removeprefix("/apis/").removeprefix("/api/")
    if served in KINDS:
        resources = [resource(kind) for kind in KINDS[served]]
        return 200, {"kind": "APIResourceList", "groupVersion": served, "resources": resources}
    parts = path.strip("/").split("/")
    if parts[:3] == ["api", "v1", "namespaces"] and len(parts) == 6 and parts[4] == "secrets":
        found = secrets.get((parts[3], parts[5]))
        if found is not None:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in found.items()}
            # Helm installs over what a release of the same name left, and over nothing else.
            owner = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": parts[3]}
            metadata = {
                "name": parts[5],
                "namespace": parts[3],
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": owner,
            }
            return 200, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    failed = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
    return 404, failed


def group(version: str) -> dict[str, Any]:
    """One group with one version, as discovery tells it."""
    name, _, number = version.partition("/")
    told = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [told], "preferredVersion": told}


def resource(kind: str) -> dict[str, Any]:
    """One kind, as discovery tells it."""
    singular = kind.lower()
    plural = f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    return {
        "name": plural,
        "singularName": singular,
        "namespaced": True,
        "kind": kind,
        "verbs": ["get", "list"],
    }


def configuration(url: str) -> dict[str, Any]:
    """A kubeconfig, which may be JSON."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "current-context": "here",
    }
