"""What operators take: KEDA's and the Prometheus operator's by models made from their custom resource
definitions, the Gateway API's by one written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from pydantic import BaseModel, ValidationError
from tests.chart.gateway_models import HTTPRoute

MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTPRoute,
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TriggerAuthentication,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): ServiceMonitor,
}
"""By API version and kind."""


def check(manifest: dict[str, Any]) -> None:
    """Strictly: an unknown field is an error, as is one that is missing or malformed.

    Raises:
        ValueError: what is wrong, and where.
        KeyError: of a kind without a model.
    """
    model = MODELS[manifest["apiVersion"], manifest["kind"]]
    named = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        read = model.model_validate(manifest)
    except ValidationError as error:
        raise ValueError(f"{named}: {error}") from error
    # The models pass over what they do not know: what is not written again was not known.
    written = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if unknown := list(_missing(manifest, written)):
        raise ValueError(f"{named}: unknown or changed: {', '.join(unknown)}")


def _missing(given: Any, written: Any, at: str = "") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            path = f"{at}.{name}".lstrip(".")
            if name in written:
                yield from _missing(value, written[name], path)
            else:
                yield path
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for number, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from _missing(one, other, f"{at}[{number}]")
    elif given != written:
        yield at
