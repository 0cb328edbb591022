"""The real Helm, once for all tests of the chart."""

from __future__ import annotations

import pytest
from tests.chart.helm_binary import NoHelm, find_helm
from tests.chart.rendering import Helm, Render


@pytest.fixture(scope="session")
def helm() -> Helm:
    try:
        return Helm(find_helm())
    except NoHelm as error:
        pytest.skip(f"NO HELM 4: {error}")


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """``render(values_files, sets, kube_version, profile) -> manifests``; see :class:`Render`."""
    return helm.render
