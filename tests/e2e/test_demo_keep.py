"""``bedplate demo --dataset DIR --keep``: a user's own files, and a platform that stays and can be asked."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from bedplate_services.demo import synthetic

pytestmark = pytest.mark.timeout(900)  # of the first test: it waits for the demo
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120.0


@dataclass
class Kept:
    """A demo that has printed its tables and goes on serving.

    Attributes:
        said: what it wrote to standard error.
        steps: the commands it told to type next, the ``export`` before them included.
    """

    process: subprocess.Popen[str]
    said: str
    steps: list[str]
    result: dict[str, Any]
    folder: Path

    def url(self, what: str) -> str:
        found = re.search(rf"{what}\s+(http://\S+)", self.said)
        assert found, self.said
        return found.group(1)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a newcomer would: after the ``export``, with this environment's ``bedplate``."""
        script = "\n".join([*(one for one in self.steps if one.startswith("export ")), command])
        hidden = ("BEDPLATE_URL", "BEDPLATE_TOKEN", "BEDPLATE_DATA")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euc", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )


def own_events(folder: Path) -> int:
    """A small world as a user might have it: Parquet and CSV, names of their own, epoch seconds."""
    events = synthetic.make(users=60, events_per_user=50).events
    seconds = pc.divide(events["event_time"].cast(pa.int64()), 1_000_000)
    mine = events.set_column(events.column_names.index("event_time"), "ts", seconds)
    mine = mine.rename_columns({"user": "uid"})
    half = len(mine) // 2
    pq.write_table(mine.slice(0, half), folder / "january.parquet")
    pacsv.write_csv(mine.slice(half), folder / "february.csv")
    return len(mine)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "mine").mkdir()
    own_events(folder / "mine")
    options = ("--column", "user=uid", "--column", "event_time=ts", "--time-unit", "s", "--seeds", "1")
    output = folder / "result.json"
    command = ["demo", "--dataset", str(folder / "mine"), *options, "--keep", "--output", str(output)]
    process = subprocess.Popen(
        [str(BIN / "bedplate"), *command],
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "250"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "Ctrl-C stops it" in line:
            break
    assert process.poll() is None, said
    yield Kept(process, said, next_steps(said), json.loads(output.read_text()), folder)
    if process.poll() is None:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def next_steps(said: str) -> list[str]:
    """The commands below "Next, in another terminal:", without what they are for."""
    lines = said.split("Next, in another terminal:")[1].split("Ctrl-C stops it")[0].splitlines()
    bare = [line.strip().strip("│").strip() for line in lines]
    return [re.split(r"\s{3,}", line)[0] for line in bare if line]


def test_a_directory_of_own_events_is_measured(kept: Kept) -> None:
    assert kept.result["world"] == "mine"
    assert sum(kept.result["surface_rows"].values()) == 3000
    assert [row["surface"] for row in kept.result["surfaces"]] == ["feed", "groups", "reels"]
    for row in kept.result["surfaces"]:
        assert set(row["mean_ne"]) == {"a", "b", "b+", "c", "d", "e"}
    assert kept.result["alias_failures"] == []
    assert kept.result["served_difference"] < 1e-5


def test_the_addresses_that_were_printed_answer(kept: Kept) -> None:
    for what in ("registry and store", "inference"):
        assert httpx.get(f"{kept.url(what)}/readyz", trust_env=False).status_code == 200
    assert httpx.get(kept.url("documentation"), trust_env=False).status_code == 200


def test_the_commands_that_were_printed_work(kept: Kept) -> None:
    commands = [one for one in kept.steps if one.startswith("bedplate ")]
    assert [shlex.split(one)[1] for one in commands] == ["status", "spaces", "rank"]
    for command in commands:
        for json_too in ("", " --json"):
            done = kept.shell(command + json_too)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert done.stdout
            if json_too:
                json.loads(done.stdout)
    assert "production -> 2" in kept.shell("bedplate status").stdout


def test_other_commands_work_on_what_it_holds(kept: Kept) -> None:
    experts = json.loads(kept.shell("bedplate experts list --json").stdout)
    assert {one["surface"] for one in experts} == {"feed", "groups", "reels"}
    sets = json.loads(kept.shell("bedplate training-sets list --surface feed --json").stdout)
    assert {one["state"] for one in sets} == {"ready"}
    target = kept.folder / "training-set"
    done = kept.shell(f"bedplate training-sets download {sets[0]['id']} {target}")
    assert done.returncode == 0, done.stderr
    assert list(target.glob("rows-*.arrow"))
    ratios = kept.shell("bedplate evaluations list --surface feed --json")
    assert {one["subject"] for one in json.loads(ratios.stdout)} >= {"core@1", "core@2"}


def test_ctrl_c_stops_it_and_what_was_acknowledged_stays(kept: Kept) -> None:
    kept.process.send_signal(signal.SIGINT)
    _, rest = kept.process.communicate(timeout=PATIENCE_SECONDS)
    assert kept.process.returncode == 0, rest
    found = re.search(r"bedplate up --data (\S+) goes on with it", rest)
    assert found, rest
    assert (Path(found.group(1)) / "store.db").is_file()
    with pytest.raises(httpx.ConnectError):
        httpx.get(kept.url("registry and store"), trust_env=False)
