from __future__ import annotations

import gc
import hashlib
from datetime import UTC, datetime

import httpx
import numpy as np
import pyarrow as pa
import pytest

from bedplate import codecs
from bedplate.errors import Conflict, DigestMismatch, JobFailed, NotFound

from .conftest import CREATED

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SET = {
    "id": "t1",
    "name": "week",
    "surface": "feed",
    "versions": ["core@1", "core@2"],
    "window_start": CREATED,
    "window_end": CREATED,
    "team": "feed-team",
    "state": "ready",
    "job": "j1",
    "created_at": CREATED,
}
JOB = {
    "id": "j1",
    "kind": "training_set",
    "subject": "t1",
    "team": "feed-team",
    "progress": [],
    "attempts": 1,
    "created_at": CREATED,
}
TAE = np.random.default_rng(0).random((5, 4)).astype(np.float16)


def rows(first: int, last: int) -> pa.Table:
    count = last - first
    return pa.table(
        {
            "request_index": pa.array(range(first, last), pa.int64()),
            "item": [f"i{number}" for number in range(first, last)],
            "position": pa.array([0] * count, pa.int32()),
            "label": pa.array([number % 2 for number in range(first, last)], pa.float32()),
            "tae:core@1": codecs.vectors_to_arrow(TAE[first:last]),
            "prediction:core@1": pa.array(np.full(count, 0.25, np.float32)),
        }
    )


REQUESTS = pa.table({"request_index": pa.array(range(5), pa.int64()), "user": ["u"] * 5})


def as_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def files(platform):
    contents = {
        "rows-0.arrow": ("rows", as_file(rows(0, 3))),
        "rows-1.arrow": ("rows", as_file(rows(3, 5))),
        "requests-0.arrow": ("requests", codecs.encode_table(REQUESTS)),
    }
    documents = []
    for name, (table, content) in contents.items():
        url = f"/v1/objects/{name}?expires=9&signature=s"
        if name == "rows-1.arrow":
            url = f"http://objects.test/bucket/{name}?X-Amz-Signature=s"
        documents.append(
            {
                "name": name,
                "table": table,
                "rows": 3,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "url": url,
            }
        )
        path = f"/bucket/{name}" if url.startswith("http") else f"/v1/objects/{name}"
        platform.on(f"GET {path}", httpx.Response(200, content=content))
    platform.on("GET /v1/training-sets/t1", httpx.Response(200, json=SET))
    platform.on("GET /v1/training-sets/t1/files", httpx.Response(200, json=documents))
    return contents


def test_the_columns_are_those_of_the_files(platform, client, files):
    data = client.training_sets.read("t1")
    assert len(data) == 5
    assert data.versions == ["core@1"]
    assert data.tae("core@1").dtype == np.float16
    assert data.tae("core@1").tobytes() == TAE.tobytes()
    assert data.predictions("core@1").tolist() == [0.25] * 5
    assert data.labels.tolist() == [0, 1, 0, 1, 0]
    assert data.request_index.tolist() == [0, 1, 2, 3, 4]
    assert data.requests.num_rows == 5
    assert [batch.num_rows for batch in data.batches(2)] == [2, 1, 2]
    with pytest.raises(NotFound, match="made with core@1"):
        data.tae("core@9")


def test_the_token_stays_with_the_platform(platform, client, files):
    client.training_sets.read("t1")
    # Fetched at the same time, so in no order.
    signed = sorted(
        (one for one in platform.requests if "ignature" in str(one.url)), key=lambda one: one.url.path
    )
    assert len(signed) == 3
    assert all("authorization" not in one.headers for one in signed)
    assert signed[1].url.params["expires"] == "9"


def test_files_in_a_directory_stay_and_are_not_fetched_again(platform, client, files, tmp_path):
    client.training_sets.read("t1", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(files)
    platform.requests.clear()
    assert len(client.training_sets.read("t1", tmp_path)) == 5
    assert len(platform.requests) == 2


def test_temporary_files_go_with_the_data(platform, client, files, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = client.training_sets.read("t1")
    assert len(list(tmp_path.iterdir())) == 1
    kept = data.labels
    del data
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert kept.tolist() == [0, 1, 0, 1, 0]


def test_a_damaged_file_is_refused(platform, client, files):
    platform.on("GET /v1/objects/rows-0.arrow", httpx.Response(200, content=b"ARROW1" + b"0" * 99))
    with pytest.raises(DigestMismatch):
        client.training_sets.read("t1")


@pytest.mark.parametrize(
    ("left_out", "reason"),
    [
        ({"unlabelled": 0, "incomplete": 0}, r"no impression of 'feed' was logged from 20\S+ to 20"),
        ({"unlabelled": 7, "incomplete": 0}, "7 impressions have no outcome of task 'label': record"),
        (
            {"unlabelled": 0, "incomplete": 1234},
            "1,234 impressions were logged without the TAE of core@1 and core@2",
        ),
        ({"unlabelled": 7, "incomplete": 5}, "5 impressions .* fewer versions; 7 impressions"),
    ],
)
def test_an_empty_one_says_why(platform, client, left_out, reason):
    platform.on("GET /v1/training-sets/t1", httpx.Response(200, json={**SET, "rows": 0, **left_out}))
    platform.on("GET /v1/training-sets/t1/files", httpx.Response(200, json=[]))
    with pytest.raises(NotFound, match=f"Training set t1 holds no row: {reason}"):
        client.training_sets.read("t1")


def test_one_that_is_being_made_is_not_read(platform, client):
    platform.on("GET /v1/training-sets/t1", httpx.Response(200, json={**SET, "state": "building"}))
    with pytest.raises(Conflict, match=r"training_sets\.wait"):
        client.training_sets.read("t1")


def test_waiting_follows_the_job(platform, client):
    building = httpx.Response(200, json={**SET, "state": "building"})
    platform.on("GET /v1/training-sets/t1", building, httpx.Response(200, json=SET))
    platform.on(
        "GET /v1/jobs/j1",
        httpx.Response(200, json={**JOB, "state": "running"}),
        httpx.Response(200, json={**JOB, "state": "succeeded"}),
    )
    assert client.training_sets.wait("t1").state == "ready"
    platform.on("GET /v1/training-sets/t1", building)
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json={**JOB, "state": "failed", "error": "no rows"}))
    with pytest.raises(JobFailed, match="no rows"):
        client.training_sets.wait("t1")


def test_a_table_comes_through_the_api_too(platform, client):
    body = codecs.encode_table(REQUESTS)
    platform.on("GET /v1/training-sets/t1/tables/requests", httpx.Response(200, content=body))
    assert client.training_sets.read_table("t1", "requests").equals(REQUESTS)
