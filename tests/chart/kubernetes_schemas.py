"""Kubernetes' own schemas, offline: what the API server of a version would refuse, is refused here."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import kubernetes_validate
from kubernetes_validate.utils import VersionNotSupportedError

CUSTOM_KINDS = frozenset(
    {
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("keda.sh/v1alpha1", "ScaledObject"),
        ("keda.sh/v1alpha1", "TriggerAuthentication"),
        ("monitoring.coreos.com/v1", "PodMonitor"),
        ("monitoring.coreos.com/v1", "PrometheusRule"),
        ("monitoring.coreos.com/v1", "ServiceMonitor"),
    }
)
"""What operators bring: operator_models.py knows it, Kubernetes does not. Any other kind is a mistake."""


def check(manifest: dict[str, Any], kubernetes: str) -> None:
    """Strictly: unknown fields are errors, and so are kinds and API versions that the version does not serve.

    Raises:
        ValueError: what is wrong, and where.
    """
    if (manifest["apiVersion"], manifest["kind"]) not in CUSTOM_KINDS:
        _check_once(json.dumps(manifest, sort_keys=True), kubernetes)


@cache
def _check_once(document: str, kubernetes: str) -> None:
    # Most manifests are the same under most values: each text is checked once for each version.
    manifest = json.loads(document)
    named = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)
    except (kubernetes_validate.SchemaNotFoundError, VersionNotSupportedError) as error:
        raise ValueError(f"{named}: {error.message}") from error
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(step) for step in error.path)
        raise ValueError(f"{named}, Kubernetes {kubernetes}, {path}: {error.message}") from error
