from __future__ import annotations

import importlib.metadata
import json
import shlex

import httpx
import numpy as np
import pytest
import typer
import typer.main

from bedplate import cli, codecs
from bedplate.cli import plugins

from .conftest import CREATED, problem
from .test_client import ALIAS, JOB, TEAM, answer_lookup, answer_search

SPACE = {
    "reference": "core@7/item",
    "foundation": "core",
    "version": 7,
    "space": "item",
    "dim": 3,
    "dtype": "float16",
    "metric": "inner_product",
    "key_type": "string",
    "snapshot": 5,
    "rows": 1234,
    "pending_rows": 0,
    "updated_at": CREATED,
}
VERSION = {
    "signature": {"architecture": "hstu", "tensors": {}},
    "files": [{"name": "config.json", "sha256": "0" * 64, "bytes": 2}],
    "foundation": "core",
    "version": 7,
    "reference": "core@7",
    "state": "ready",
    "digest": "0" * 64,
    "created_at": CREATED,
}
EMPTY = httpx.Response(200, json={"items": [], "next": None})
LISTS = {
    "teams list": "teams",
    "tokens list feed-team": "teams/feed-team/tokens",
    "surfaces list": "surfaces",
    "foundations list": "foundations",
    "versions list core": "foundations/core/versions",
    "aliases list core": "foundations/core/aliases",
    "aliases history core@production": "foundations/core/aliases/production/history",
    "experts list": "experts",
    "training-sets list": "training-sets",
    "evaluations list": "evaluations",
    "spaces list": "spaces",
    "spaces snapshots core@7/item": "spaces/core@7/item/snapshots",
    "spaces storage-costs core@7/item": "spaces/core@7/item/storage-costs",
    "spaces readers core@7/item": "spaces/core@7/item/readers",
    "jobs list": "jobs",
}


def commands(group, path=()):
    """Every command as (path, command)."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


ALL = list(commands(typer.main.get_command(cli.create_app())))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_an_example_and_json(path, command, run):
    assert command.help
    assert command.epilog.startswith(f"Example: bedplate {' '.join(path)}")
    assert "--json" in [option for parameter in command.params for option in parameter.opts]
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert "Example:" in out


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_example_is_one_that_the_command_takes(path, command):
    words = shlex.split(command.epilog.removeprefix("Example: bedplate "))[len(path) :]
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {word for word in words if word.startswith("-")} <= options


def test_the_examples_of_plugins_show_options():
    plugged = {path[0]: command.epilog for path, command in ALL if path in (("up",), ("demo",))}
    assert set(plugged) == {"up", "demo"}
    assert all("--" in epilog for epilog in plugged.values())


def test_a_table_for_people(platform, run):
    platform.on("GET /v1/teams", httpx.Response(200, json=[TEAM]))
    code, out, err = run("teams", "list")
    assert code == 0
    assert out.split() == ["TEAM", "DESCRIPTION", "CREATED", "feed-team", "-", "2026-11-22", "10:00:00Z"]
    assert err == ""


def test_json_for_programs(platform, run):
    platform.on("GET /v1/teams", httpx.Response(200, json=[TEAM]))
    code, out, err = run("teams", "list", "--json")
    assert (code, json.loads(out), err) == (0, [TEAM], "")


@pytest.mark.parametrize("command", LISTS)
def test_empty_lists_say_what_to_do_and_are_json(platform, run, command):
    platform.on(f"GET /v1/{LISTS[command]}", EMPTY)
    code, out, err = run(*command.split())
    assert (code, out) == (0, "")
    assert len(err) > 20
    assert run(*command.split(), "--json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (422, "invalid_request", 2),
        (404, "not_found", 3),
        (401, "unauthenticated", 4),
        (403, "forbidden", 4),
        (409, "already_exists", 5),
        (503, "unavailable", 6),
        (500, "internal_error", 1),
    ],
)
def test_exit_codes_tell_errors_apart(platform, run, status, error, expected):
    platform.on("POST /v1/teams", problem(status, error, "what was wrong", hint=1))
    code, out, err = run("teams", "create", "feed-team")
    assert (code, out) == (expected, "")
    assert "what was wrong" in err
    assert "from-header" in err
    code, out, err = run("teams", "create", "feed-team", "--json")
    assert (code, out) == (expected, "")
    document = json.loads(err)
    assert (document["code"], document["hint"], document["request_id"]) == (error, 1, "from-header")


def test_wrong_usage_is_two(run):
    code, out, err = run("teams", "create")
    assert (code, out) == (2, "")
    assert "Missing argument" in err
    assert run("timelines", "show", "u", "--at", "2026-01-01")[0] == 2


def test_without_a_platform_the_advice_is_bedplate_up(capsys, monkeypatch, tmp_path):
    for name in ("BEDPLATE_URL", "BEDPLATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BEDPLATE_DATA", str(tmp_path))
    assert cli.run(["teams", "list"]) == 6
    assert "bedplate up" in capsys.readouterr().err


def test_the_secret_of_a_token_is_shown_once(platform, run):
    token = {"id": 1, "team": "feed-team", "role": "member", "description": "", "created_at": CREATED}
    platform.on("POST /v1/teams/feed-team/tokens", httpx.Response(201, json={**token, "secret": "s3cret"}))
    code, out, err = run("tokens", "issue", "feed-team")
    assert code == 0
    assert "s3cret" in out
    assert "Keep the secret" in err


def test_an_alias_moves_from_where_it_points(platform, run):
    url = "/v1/foundations/core/aliases/production"
    platform.on(f"GET {url}", httpx.Response(200, json={**ALIAS, "version": 6}))
    platform.on(f"PUT {url}", httpx.Response(200, json=ALIAS))
    code, _, err = run("aliases", "move", "core@production", "7", "--reason", "better")
    assert code == 0
    assert "moved from 6 to 7" in err
    assert json.loads(platform.requests[-1].content)["expected_version"] == 6
    run("aliases", "move", "core@production", "7", "--expected", "0")
    assert json.loads(platform.requests[-1].content)["expected_version"] is None
    assert run("aliases", "move", "core@6", "7")[0] == 2


def test_an_alias_moves_whether_readers_are_ready_or_not(platform, run):
    url = "/v1/foundations/core/aliases/production"
    platform.on(f"PUT {url}", httpx.Response(200, json=ALIAS))
    run("aliases", "move", "core@production", "7", "--expected", "6", "--wait", "2.5")
    sent = json.loads(platform.requests[-1].content)
    assert (sent["wait_for_readers_seconds"], sent["force"]) == (2.5, False)
    run("aliases", "move", "core@production", "7", "--expected", "6", "--force")
    assert json.loads(platform.requests[-1].content)["force"] is True
    platform.on(f"PUT {url}", problem(409, "readers_not_ready", "api/7 has not opened it"))
    code, _, err = run("aliases", "move", "core@production", "7", "--expected", "6")
    assert code != 0
    assert "api/7" in err


def test_readers_of_a_space(platform, run):
    reader = {
        "reader": "1",
        "service": "api",
        "process": "host/7",
        "url": "http://a",
        "snapshot": 5,
        "sequence": 12,
        "newest": True,
        "in_use": False,
        "seen_at": CREATED,
    }
    page = {"items": [reader], "next": None}
    platform.on("GET /v1/spaces/core@7/item/readers", httpx.Response(200, json=page))
    code, out, _ = run("spaces", "readers", "core@7/item")
    assert code == 0
    assert out.splitlines()[1].split()[:8] == ["api", "host/7", "http://a", "5", "yes", "12", "-", "no"]
    reader |= {"service": "store-node", "node": "node-1", "shards": [0, 3]}
    platform.on("GET /v1/spaces/core@7/item/readers", httpx.Response(200, json=page))
    assert "node-1: 0, 3" in run("spaces", "readers", "core@7/item")[1]


def test_shards_are_listed_and_assigned(platform, run):
    one = {"space": "*", "shard": 3, "node": "node-2", "assigned_at": CREATED}
    page = httpx.Response(200, json={"items": [one], "next": None})
    platform.on("GET /v1/shards", page)
    platform.on("POST /v1/shards/assign", page)
    code, out, _ = run("shards", "list")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["*", "3", "node-2"]
    code, out, _ = run("shards", "assign", "node-2", "3", "--expected", "node-1", "--json")
    assert code == 0
    assert json.loads(out)[0]["node"] == "node-2"
    sent = json.loads(platform.requests[-1].content)
    assert sent == {"space": "*", "shards": [3], "node": "node-2", "expected_node": "node-1"}
    run("shards", "assign", "-", "3", "--expected", "node-2", "--space", "core@7/item")
    sent = json.loads(platform.requests[-1].content)
    assert sent == {"space": "core@7/item", "shards": [3], "node": None, "expected_node": "node-2"}


def test_moves_of_shards(platform, run):
    move = {"space": "*", "shard": 3, "from_node": None, "to_node": "node-2", "moved_by": "ops"}
    page = {"items": [{**move, "moved_at": CREATED}], "next": None}
    platform.on("GET /v1/shards/moves", httpx.Response(200, json=page))
    code, out, _ = run("shards", "moves", "--limit", "1")
    assert code == 0
    assert out.splitlines()[1].split()[:5] == ["*", "3", "-", "node-2", "ops"]


def test_an_alias_that_is_not_set_yet_is_set(platform, run):
    platform.on("PUT /v1/foundations/core/aliases/production", httpx.Response(200, json=ALIAS))
    code, _, err = run("aliases", "move", "core@production", "7")
    assert code == 0
    assert "not set yet" in err


def test_lookup_and_search(platform, run):
    platform.on("GET /v1/spaces/core@7/item", httpx.Response(200, json=SPACE))
    platform.on("POST /v1/spaces/core@7/item/lookup", answer_lookup)
    platform.on("POST /v1/spaces/core@7/item/search", answer_search)
    code, out, err = run("spaces", "lookup", "core@7/item", "a", "b")
    assert code == 0
    assert out.splitlines()[1].split() == ["a", "no", "-"]
    assert out.splitlines()[2].split() == ["b", "yes", "+0.1000", "+0.1000", "+0.1000"]
    assert "core@7, snapshot 5, dimension 3" in err
    document = json.loads(run("spaces", "lookup", "core@7/item", "a", "b", "--json")[1])
    assert document["found"] == [False, True]
    assert np.allclose(document["vectors"][1], 0.1, atol=1e-3)
    found = json.loads(run("spaces", "search", "core@7/item", "--key", "a", "-k", "2", "--json")[1])
    assert found["queries"] == [{"query": "a", "found": True, "hits": [{"key": "x", "score": 0.5}]}]
    assert "0.5000" in run("spaces", "search", "core@7/item", "--vector", "1,2,3")[1]
    assert run("spaces", "search", "core@7/item")[0] == 2
    assert run("spaces", "search", "core@7/item", "--vector", "1,x")[0] == 2


def test_keys_are_sent_in_the_type_of_the_space(platform, run):
    platform.on("GET /v1/spaces/core@7/item", httpx.Response(200, json={**SPACE, "key_type": "int64"}))
    platform.on("POST /v1/spaces/core@7/item/lookup", answer_lookup)
    assert run("spaces", "lookup", "core@7/item", "1", "2")[0] == 0
    assert codecs.decode_keys_raw(platform.requests[-1].content).tolist() == [1, 2]
    code, _, err = run("spaces", "lookup", "core@7/item", "a")
    assert code == 2
    assert "int64" in err


def test_a_file_of_vectors_is_never_unpickled(platform, run, tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, _, err = run("spaces", "search", "core@7/item", "--vectors", str(tmp_path / "bad.npy"))
    assert code == 2
    assert "cannot be read" in err


def test_embedding_waits_for_the_job_or_not(platform, run):
    platform.on("POST /v1/spaces/core@7/item/embed", httpx.Response(202, json={"job": "j1"}))
    done = {**JOB, "state": "succeeded"}
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json=JOB), httpx.Response(200, json=done))
    assert json.loads(run("spaces", "embed", "core@7/item", "--no-wait", "--json")[1]) == {"job": "j1"}
    code, out, _ = run("spaces", "embed", "core@7/item", "--json")
    assert (code, json.loads(out)["state"]) == (0, "succeeded")


def test_embedding_names_the_attributes(platform, run):
    platform.on("POST /v1/spaces/core@7/item/embed", httpx.Response(202, json={"job": "j1"}))
    run("spaces", "embed", "core@7/item", "--attribute", "genres", "--attribute", "year", "--no-wait")
    run("spaces", "embed", "core@7/item", "--no-wait")
    named, unnamed = (json.loads(request.content)["attributes"] for request in platform.requests)
    assert named == ["genres", "year"]
    assert unnamed is None, "those that the space has"


def test_a_failed_job_fails_the_command_with_its_reason(platform, run):
    failed = {**JOB, "state": "failed", "error": "no such checkpoint"}
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json=failed))
    code, out, err = run("jobs", "watch", "j1")
    assert (code, out) == (1, "")
    assert "no such checkpoint" in err


def test_events_are_imported_in_the_order_of_time(platform, run, tmp_path):
    lines = ["uid,item,action,surface,event_time", "b,i,like,feed,5", "a,i,like,feed,3", "c,i,like,feed,5"]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")

    def accept(request):
        rows = codecs.decode_events(request.content)
        return httpx.Response(200, json={"accepted": rows.num_rows, "sequence": rows.num_rows})

    platform.on("POST /v1/events", accept)
    arguments = ("events", "import", str(tmp_path), "--time-unit", "s", "--column", "user=uid")
    code, out, _ = run(*arguments, "--json")
    assert (code, json.loads(out)) == (0, {"accepted": 3, "sequence": 3})
    sent = codecs.decode_events(platform.requests[-1].content)
    assert sent["user"].to_pylist() == ["a", "b", "c"]
    platform.requests.clear()
    assert json.loads(run(*arguments, "--dry-run", "--json")[1]) == {"rows": 3, "accepted": 0}
    assert platform.requests == []
    code, _, err = run("events", "import", str(tmp_path))
    assert code == 2
    assert "column 'user' is missing" in err


def test_items_are_imported_and_bad_lines_named(platform, run, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"key": "a", "features": {"y": 1}}\n\n{"key": ""}\n')
    code, _, err = run("items", "import", str(file))
    assert code == 2
    assert "line 3" in err
    file.write_text('{"key": "a", "features": {"y": 1}}\n')
    platform.on("PUT /v1/items", httpx.Response(200, json={"accepted": 1}))
    assert run("items", "import", str(file))[0] == 0
    assert run("items", "import", str(tmp_path / "nowhere.jsonl"))[0] == 2


def test_status(platform, run):
    endpoints = {"registry": "r", "store": "s", "inference": "http://i", "version": "0.1.0"}
    platform.on("GET /v1/endpoints", httpx.Response(200, json=endpoints))
    platform.on("GET /v1/whoami", httpx.Response(200, json={"team": "feed-team", "role": "member"}))
    foundation = {"name": "core", "team": "foundation", "description": "", "created_at": CREATED}
    platform.on("GET /v1/foundations", httpx.Response(200, json=[foundation]))
    platform.on("GET /v1/foundations/core/aliases", httpx.Response(200, json=[ALIAS]))
    platform.on("GET /v1/spaces", httpx.Response(200, json=[SPACE]))
    platform.on("GET /v1/jobs", EMPTY)
    code, out, _ = run("status")
    assert code == 0
    assert "production -> 7" in out
    assert "1,234" in out
    document = json.loads(run("status", "--json")[1])
    assert document["foundations"] == {"core": {"production": 7}}


class Entry:
    """An entry point whose command cannot be loaded, or breaks when it runs."""

    def __init__(self, name, loaded):
        self.name, self._loaded = name, loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def needs_torch(data: str = "x") -> None:
    """Serve."""
    raise ModuleNotFoundError(f"No module named 'torch' ({data})", name="torch")


def test_a_command_that_lacks_a_library_stays_and_says_what_to_install(run, monkeypatch):
    broken = [Entry("up", ImportError("No module named 'fastapi'")), Entry("demo", needs_torch)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: broken)
    assert "demo" in run("--help")[1]
    for name, missing in (("up", "fastapi"), ("demo", "torch")):
        code, _, err = run(name)
        assert code == 6
        assert missing in err
        assert "pip install 'bedplate[server,cpu]'" in err


def test_the_entry_points_are_there():
    found = {entry.name for entry in importlib.metadata.entry_points(group=plugins.GROUP)}
    assert found == {"up", "demo"}


def test_a_file_that_cannot_be_written_is_named_without_a_traceback(platform, run, tmp_path):
    (tmp_path / "taken").write_text("")
    platform.on("GET /v1/foundations/core/versions/7", httpx.Response(200, json=VERSION))
    code, _, err = run("versions", "download", "core@7", str(tmp_path / "taken"))
    assert code == 1
    assert str(tmp_path / "taken") in err


def test_storage_costs_stand_side_by_side_and_what_is_missing_is_said(platform, run):
    ne = {
        "storage": "int8",
        "against": "float16",
        "surface": "feed",
        "task": "label",
        "expert": "feed-ranker",
        "variant": "vectors",
        "spaces": ["item", "user"],
        "window_start": CREATED,
        "window_end": CREATED,
        "ne": 0.8714,
        "ne_against": 0.871,
        "cost": 0.0004,
        "cost_std": 0.0002,
        "seeds": 3,
    }
    unknown = {"space": None, "snapshot": None, "rows": None, "bytes": None, "compression": None, "ne": []}
    byte = {
        "dtype": "int8",
        "row_bytes": 66,
        "space": "core@8/item",
        "snapshot": 1,
        "rows": 10,
        "bytes": 760,
        "compression": {
            "rows": 10,
            "relative_error_mean": 0.0064,
            "relative_error_p99": 0.01,
            "recall_at_10": 0.98,
        },
        "ne": [ne, {**ne, "expert": "other", "cost_std": None, "seeds": 1}],
        "unmeasured": [],
    }
    nibble = {"dtype": "int4", "row_bytes": 36, **unknown, "unmeasured": ["Publish it."]}
    costs = {"items": [byte, nibble], "next": None}
    platform.on("GET /v1/spaces/core@7/item/storage-costs", httpx.Response(200, json=costs))
    code, out, err = run("spaces", "storage-costs", "core@7/item")
    assert code == 0
    assert "+0.00040 +- 0.00020 (feed-ranker, 3 seeds, against float16)" in out
    assert "+0.00040 (other, 1 seed, against float16)" in out
    assert "0.0064" in out
    assert err == "int4: Publish it.\n"
    code, out, err = run("spaces", "storage-costs", "core@7/item", "--json")
    assert (json.loads(out), err) == (costs["items"], "")
