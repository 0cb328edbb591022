"""What the manifests run is in the code, and every setting that they give is one that the code reads."""

from __future__ import annotations

import importlib.util

import pytest
from pydantic_settings import BaseSettings
from tests.chart.manifests import environment, pods, walk
from tests.chart.rendering import Render, one, values_names

from bedplate_services.provisioning import ProvisioningSettings
from bedplate_services.settings import Settings
from bedplate_workers.settings import WorkerSettings

READ_BY: dict[str, type[BaseSettings]] = {
    "bedplate_services": ProvisioningSettings,
    "bedplate_workers": WorkerSettings,
}
OF_THE_CLIENT = {"BEDPLATE_URL", "BEDPLATE_TOKEN", "BEDPLATE_INFERENCE_URL"}


def names(settings: type[BaseSettings]) -> set[str]:
    return {f"BEDPLATE_{field.upper()}" for field in settings.model_fields}


@pytest.mark.parametrize("values", values_names())
def test_every_module_that_is_run_is_there(render: Render, values: str) -> None:
    modules = set()
    for pod in pods(render([values])):
        for path, value in walk(pod.spec):
            if path and path[-1] == "command" and value[:2] == ["python", "-m"]:
                modules.add(value[2])
    assert len(modules) >= 6
    for module in modules:
        found = importlib.util.find_spec(module)
        assert found, f"there is no {module}"
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{module}.__main__"), f"{module} cannot be run"


@pytest.mark.parametrize("values", values_names())
def test_every_setting_is_read_by_the_process_that_gets_it(render: Render, values: str) -> None:
    manifests = render([values])
    everything = names(ProvisioningSettings) | names(WorkerSettings)
    shared = set(one(manifests, "ConfigMap", "bedplate-settings")["data"])
    assert shared <= everything, f"nobody reads {shared - everything}"
    for pod in pods(manifests):
        for container in pod.containers:
            given = {name for name in environment(container) if name.startswith("BEDPLATE_")}
            if pod.component == "test":
                assert given == OF_THE_CLIENT
            elif pod.ours:
                (package,) = [name for name in READ_BY if container["command"][2].startswith(name)]
                own = given - shared - {"BEDPLATE_SHARD_SECRET"}  # of everybody who may ask for shards
                assert own <= names(READ_BY[package]), f"{pod.name}: nobody reads {own}"


@pytest.mark.parametrize("values", values_names())
def test_no_required_setting_is_missing(render: Render, values: str) -> None:
    manifests = render([values])
    shared = set(one(manifests, "ConfigMap", "bedplate-settings")["data"])
    for pod in pods(manifests):
        for container in pod.containers:
            if not pod.ours or pod.component == "test":
                continue
            given = set(environment(container)) | (shared if "envFrom" in container else set())
            settings = Settings if container["command"][2].startswith("bedplate_services") else WorkerSettings
            required = {
                f"BEDPLATE_{name.upper()}"
                for name, field in settings.model_fields.items()
                if field.is_required()
            }
            assert required <= given, f"{pod.name}: {container['name']} lacks {required - given}"
