"""``bedplate demo`` as a user starts it, on the synthetic world, whose optimum is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)  # of the first test, whichever that is: it runs the demo


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("demo") / "result.json"
    command = [
        str(Path(sys.executable).with_name("bedplate")),
        "demo",
        "--dataset",
        "synthetic",
        "--seeds",
        "1",
    ]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "(e) TAE of core@2" in done.stdout
    assert "Finished in " in done.stdout
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_the_foundation_helps_every_surface(result: dict[str, Any]) -> None:
    assert [row["surface"] for row in result["surfaces"]] == ["feed", "groups", "reels"]
    for row in result["surfaces"]:
        ne, best = row["mean_ne"], row["bayes_ne"]
        assert best - 0.05 < ne["e"], "better than possible: something has seen the label"
        assert ne["e"] < 0.95 * ne["b"], "the expert on TAE should beat the one without, clearly"
        assert ne["e"] < ne["d"], "the better foundation should make the better expert"
        assert row["foundation"]["core@2"]["ne"] < row["foundation"]["core@1"]["ne"]


def test_the_base_rate_is_measured_like_every_other_variant(result: dict[str, Any]) -> None:
    for row in result["surfaces"]:
        assert row["mean_ne"]["a"] == pytest.approx(1.0, abs=1e-9)
        assert row["mean_auc"]["a"] == 0.5
        assert 0 < row["label_rate"] < 1
        assert set(row["mean_ne"]) == {"a", "b", "b+", "c", "d", "e"} == set(row["ne_spread"])


def test_every_event_belongs_to_a_surface(result: dict[str, Any]) -> None:
    assert set(result["surface_rows"]) == {"feed", "groups", "reels"}
    assert sum(result["surface_rows"].values()) == 48_000
    for row in result["surfaces"]:
        assert 0 < row["rows"] < result["surface_rows"][row["surface"]]


def test_the_time_is_told_from_the_start_of_the_process(result: dict[str, Any]) -> None:
    steps = result["seconds"]
    assert sum(steps.values()) < result["total_seconds"], "what lies between the steps counts, too"
    assert {title[0] for title in steps} == set("01234567")


def test_reads_never_fail_nor_mix_while_the_alias_moves(result: dict[str, Any]) -> None:
    assert set(result["alias_reads"]) == {"core@1", "core@2"}
    assert result["alias_failures"] == []


def test_what_was_served_is_what_was_evaluated(result: dict[str, Any]) -> None:
    assert result["served_sample"] >= 5
    assert result["served_difference"] < 1e-5


def test_every_space_was_indexed_and_its_recall_measured(result: dict[str, Any]) -> None:
    measured = {entry["reference"]: entry["recall_at_10"] for entry in result["index"]}
    assert set(measured) == {"core@1/item", "core@1/user", "core@2/item", "core@2/user"}
    assert min(measured.values()) >= 0.95
