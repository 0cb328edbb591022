"""compose.yaml: what Compose takes, on the images and settings that there are."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from tests.images.dockerfile import ROOT, TARGETS, read_stages

from bedplate_services import serve
from bedplate_services.settings import Settings
from bedplate_workers.settings import WorkerSettings

Services = dict[str, dict[str, Any]]
OURS = {"migrations", "provisioning", "api", "inference", "worker", "reconciler"}
ONCE = {"migrations", "provisioning"}


def read_compose() -> dict[str, Any]:
    """With variables replaced by their defaults, as Compose does, and anchors resolved."""
    text = (ROOT / "compose.yaml").read_text()
    return dict(yaml.safe_load(re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", text)))


def check(compose: dict[str, Any]) -> None:
    """Raises ValueError for an unknown key or a malformed value."""
    # The specification allows a tag before a digest, this reader does not.
    text = re.sub(r":[\w.-]+(@sha256:\w{64})", r"\1", yaml.safe_dump(compose))
    compose_spec.PyCompose.from_yaml(text).validate()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose()


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> Services:
    return dict(compose["services"])


def test_compose_takes_it(compose: dict[str, Any]) -> None:
    check(compose)


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("api", "portz", []),
        ("api", "healthcheck", {"test": ["CMD", "true"], "interval": "soon"}),
        ("s3", "configs", [{"source": "nothing", "target": "/etc/s3.json"}]),
    ],
)
def test_compose_would_refuse_it(compose: dict[str, Any], service: str, key: str, value: object) -> None:
    changed = copy.deepcopy(compose)
    changed["services"][service][key] = value
    with pytest.raises(ValueError, match=r"portz|soon|nothing"):
        check(changed)


def test_services_wait_for_services_that_there_are_and_that_tell(services: Services) -> None:
    for name, service in services.items():
        for other, waits in service.get("depends_on", {}).items():
            if waits["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            else:
                assert waits["condition"] == "service_completed_successfully"
                assert other in ONCE


def test_every_service_that_stays_has_a_healthcheck(services: Services) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONCE


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_the_images_as_they_are_meant_to(services: Services, name: str) -> None:
    service = services[name]
    target = service["build"]["target"]
    assert target in TARGETS
    assert service["image"].startswith(f"bedplate-{target}:")
    assert importlib.util.find_spec(service["command"][0]) is not None
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "entrypoint" not in service
    assert "user" not in service


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_get_settings_that_there_are(services: Services, name: str) -> None:
    documented = set(re.findall(r"^\| `(BEDPLATE_\w+)` \|", (ROOT / "docs/settings.md").read_text(), re.M))
    assert set(services[name]["environment"]) <= documented


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_images_are_built_here_and_not_pulled(services: Services, name: str) -> None:
    assert services[name]["pull_policy"] == "build"


def test_every_service_has_the_time_that_it_takes_to_stop(services: Services) -> None:
    drains = Settings.model_fields["drain_seconds"].default + serve.GRACE_SECONDS
    stops = WorkerSettings.model_fields["stop_seconds"].default
    graces = {name: seconds(service["stop_grace_period"]) for name, service in services.items()}
    assert min(graces[name] for name in OURS) > max(drains, stops)
    assert all(grace > 10 for grace in graces.values()), "Compose's own 10 s are few to write a database down"


def test_volumes_are_those_that_are_defined(compose: dict[str, Any], services: Services) -> None:
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert set(mounted) == set(compose["volumes"])


def test_volumes_are_mounted_where_the_image_writes(services: Services) -> None:
    for name in OURS:
        written = read_stages()[services[name]["build"]["target"]].pairs("ENV")
        places = {written["BEDPLATE_CACHE_DIR"], written["BEDPLATE_SPOOL_DIR"]}
        assert {volume.split(":")[1] for volume in services[name].get("volumes", [])} <= places


def test_what_inference_spools_is_what_the_reconciler_seals(services: Services) -> None:
    spool = read_stages()["inference"].pairs("ENV")["BEDPLATE_SPOOL_DIR"]
    for name in ("inference", "reconciler"):
        assert f"spool:{spool}" in services[name]["volumes"]


def test_only_this_machine_reaches_the_ports(services: Services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_s3_server_knows_the_credentials_that_our_services_send(compose: dict[str, Any]) -> None:
    [identity] = json.loads(compose["configs"]["s3"]["content"])["identities"]
    sent = compose["services"]["api"]["environment"]
    assert identity["credentials"] == [
        {"accessKey": sent["BEDPLATE_S3_ACCESS_KEY"], "secretKey": sent["BEDPLATE_S3_SECRET_KEY"]}
    ]


def test_the_servers_are_those_that_the_chart_bundles(services: Services) -> None:
    values = yaml.safe_load((ROOT / "helm/bedplate/values.yaml").read_text())
    parts = {"postgresql": "database", "valkey": "broker", "s3": "objectStore"}
    for name, part in parts.items():
        image = values[part]["bundled"]["image"]
        assert services[name]["image"] == f"{image['repository']}:{image['tag']}@{image['digest']}"
    server = values["objectStore"]["bundled"]
    assert services["s3"]["entrypoint"] == server["command"]
    assert services["s3"]["command"] == server["args"]


def test_a_token_must_be_given(compose: dict[str, Any]) -> None:
    text = Path(ROOT / "compose.yaml").read_text()
    assert "${BEDPLATE_TOKEN:?" in text
    assert compose["services"]["provisioning"]["environment"]["BEDPLATE_ADMIN_TOKEN"].startswith("set it to")
