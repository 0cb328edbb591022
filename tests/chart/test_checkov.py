"""Layer 4: checkov's policies. What it asks for and does not get is listed here with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from tests.chart.checkov_environment import Finding, NoCheckov, find_checkov, scan
from tests.chart.rendering import Render, values_names


@dataclass(frozen=True)
class Exemption:
    """Objects (as ``KIND.default.NAME``, by regular expression) of which a check is not asked, and why."""

    check: str
    resources: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        return finding.check == self.check and re.fullmatch(self.resources, finding.resource) is not None


BUNDLED = r"StatefulSet\.default\.bedplate-(postgresql|s3|valkey)"
OURS = r"(?!StatefulSet).*"
TEST = r"Pod\.default\.bedplate-test"
QUEUED = r"Deployment\.default\.bedplate-(reconciler|worker-[cg]pu)"
EXEMPTIONS = [
    Exemption("CKV_K8S_11", ".*", "CPU is requested and not limited: a limit throttles while cores idle"),
    Exemption("CKV_K8S_15", ".*", "a tag is a version, a digest wins over it: pulling again brings the same"),
    Exemption("CKV_K8S_21", ".*", "manifests name no namespace: Helm puts them into the release's"),
    Exemption("CKV_K8S_35", ".*", "settings come from the environment, those that are secret too"),
    Exemption("CKV_K8S_40", BUNDLED, "the images of others have users of their own"),
    Exemption("CKV_K8S_43", OURS, "image.digests: only who builds Bedplate's images knows them"),
    Exemption("CKV_K8S_8", TEST, "it has a deadline instead"),
    Exemption("CKV_K8S_9", TEST, "nobody sends it requests"),
    Exemption("CKV_K8S_9", QUEUED, "nobody sends them requests; they ask for work"),
    Exemption("CKV2_K8S_6", TEST, "it lives for a minute and serves nothing"),
]


@pytest.fixture(scope="module")
def findings(render: Render, tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Of all values files and a bad sample, in one run: checkov takes seconds to start."""
    try:
        python = find_checkov()
    except NoCheckov as error:
        pytest.skip(f"NO CHECKOV: {error}")
    folder = tmp_path_factory.mktemp("manifests")
    for values in values_names():
        (folder / f"{values}.yaml").write_text(yaml.safe_dump_all(render([values])))
    (folder / "sample.yaml").write_text(yaml.safe_dump(privileged_pod()))
    return scan(python, folder)


def privileged_pod() -> dict[str, Any]:
    container = {"name": "sample", "image": "sample", "securityContext": {"privileged": True}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sample"},
        "spec": {"containers": [container]},
    }


@pytest.mark.parametrize("values", values_names())
def test_checkov_finds_nothing_that_is_not_exempt(findings: list[Finding], values: str) -> None:
    left = [
        f"{finding.check} {finding.title}: {finding.resource}"
        for finding in findings
        if finding.file == f"{values}.yaml" and not any(one.covers(finding) for one in EXEMPTIONS)
    ]
    assert left == []


def test_every_exemption_is_needed(findings: list[Finding]) -> None:
    ours = [finding for finding in findings if finding.file != "sample.yaml"]
    idle = [one for one in EXEMPTIONS if not any(one.covers(finding) for finding in ours)]
    assert idle == []


def test_checkov_finds_what_is_there(findings: list[Finding]) -> None:
    assert "CKV_K8S_16" in {finding.check for finding in findings if finding.file == "sample.yaml"}
