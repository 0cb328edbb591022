"""Every alert is about metrics that there are, has a runbook, and fires when it should and not before."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operations.alert_cases import CASES
from tests.unit.operations.documents import OPERATIONS, ROOT, anchors, faults_of

RULES = sorted((ROOT / "helm" / "bedplate" / "rules").glob("*.yaml"))
ALERTS: list[dict[str, Any]] = [
    rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]


def test_names_are_unique() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) > 10
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_is_about_documented_metrics_and_has_a_runbook(alert: dict[str, Any]) -> None:
    assert faults_of(alert["expr"]) == []
    assert alert["labels"]["severity"] in ("page", "ticket")
    document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert ROOT / document == OPERATIONS
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(OPERATIONS)


def test_every_runbook_belongs_to_an_alert() -> None:
    headings = re.findall(r"^### (Bedplate\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert["alert"] for alert in ALERTS)


def test_faults_of_expressions_are_found() -> None:
    assert faults_of("rate(bedplate_api_wishes_total[5m])") == ["bedplate_api_wishes_total is no metric"]
    assert faults_of('bedplate_space_recall_ratio{neighbors="10"} < 1') == [
        "bedplate_space_recall_ratio has no label neighbors"
    ]
    assert faults_of("sum by (queue) (bedplate_space_snapshot)") == ["nothing here has a label queue"]
    assert faults_of("bedplate_api_requests_total > 5") == [
        "bedplate_api_requests_total only ever grows: take its rate or increase"
    ]
    assert faults_of("up == 0") == ["no metric of ours"]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_prometheus_takes_the_rules(path: Path, promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(alert["alert"] for alert in ALERTS)


def test_every_alert_fires_on_its_fault_and_not_on_a_sound_platform(tmp_path: Path, promtool: Path) -> None:
    """Prometheus' own test of rules: each alert sees a platform with its fault, and one without."""
    tests = []
    for name in [alert["alert"] for alert in ALERTS]:
        faulty, sound, minutes = CASES[name]
        firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
        for series, fires in ((faulty, True), (sound, False)):
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is silent'}",
                    "interval": "1m",
                    "input_series": [{"series": one, "values": values} for one, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": firing,
                            "eval_time": f"{minutes}m",
                            "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}],
                        }
                    ],
                }
            )
    document = tmp_path / "tests.yaml"
    document.write_text(
        json.dumps({"rule_files": [str(path) for path in RULES], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run([promtool, "test", "rules", str(document)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
