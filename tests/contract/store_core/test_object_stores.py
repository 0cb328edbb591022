"""What every object store adapter does, and what each does on top."""

from __future__ import annotations

import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.engines import S3

from bedplate.errors import InvalidRequest, NotFound, Unavailable
from bedplate_store.objects import (
    LocalObjectStore,
    MemoryObjectStore,
    ObjectStore,
    S3ObjectStore,
    open_object_store,
)

LARGE = os.urandom(6 << 20)  # more than one part of a multipart upload


def test_what_was_put_is_read_back(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put("a/b", b"hello")
    assert objects.get("a/b") == b"hello"
    assert objects.size("a/b") == 5
    objects.get_file("a/b", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"hello"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"]


def test_a_put_replaces(objects: ObjectStore) -> None:
    objects.put("a", b"one")
    objects.put("a", memoryview(b"three"))
    assert objects.get("a") == b"three"


def test_an_empty_object_is_an_object(objects: ObjectStore) -> None:
    objects.put("empty", b"")
    assert objects.size("empty") == 0
    assert objects.get("empty") == b""
    assert objects.get_range("empty", 0, 10) == b""


def test_ranges_end_where_the_object_ends(objects: ObjectStore) -> None:
    objects.put("a", b"0123456789")
    assert objects.get_range("a", 2, 3) == b"234"
    assert objects.get_range("a", 8, 5) == b"89"
    assert objects.get_range("a", 10, 5) == b""
    assert objects.get_range("a", 3, 0) == b""


def test_a_large_file_goes_and_comes(objects: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    objects.put_file("large", tmp_path / "large")
    assert objects.size("large") == len(LARGE)
    assert objects.get("large") == LARGE
    objects.get_file("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == LARGE


def test_what_is_missing_is_named(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put("folder/object", b"x")
    for key in ("nothing", "folder", "folder/object/below"):
        assert objects.size(key) is None
        assert objects.modified_at(key) is None
        assert objects.local_path(key) is None
        with pytest.raises(NotFound, match=key):
            objects.get(key)
        with pytest.raises(NotFound, match=key):
            objects.get_range(key, 0, 1)
        with pytest.raises(NotFound, match=key):
            objects.get_file(key, tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


def test_listing_goes_by_prefix(objects: ObjectStore) -> None:
    for key in ("a/one", "a/two", "ab/three", "b"):
        objects.put(key, b"")
    assert sorted(objects.list("")) == ["a/one", "a/two", "ab/three", "b"]
    assert sorted(objects.list("a/")) == ["a/one", "a/two"]
    assert sorted(objects.list("a")) == ["a/one", "a/two", "ab/three"]
    assert sorted(objects.list("a/t")) == ["a/two"]
    assert list(objects.list("nothing/here")) == []


def test_deleting_twice_is_no_error(objects: ObjectStore) -> None:
    objects.put("a/b", b"")
    objects.delete("a/b")
    objects.delete("a/b")
    assert list(objects.list("")) == []
    objects.put("a/b", b"again")
    assert objects.get("a/b") == b"again"


def test_the_time_of_a_put_is_known(objects: ObjectStore) -> None:
    objects.put("a", b"")
    modified_at = objects.modified_at("a")
    assert modified_at is not None
    assert modified_at.tzinfo is not None
    assert abs(modified_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a b", "a\0", "x" * 513, "é"]
)
def test_keys_that_could_leave_the_root_are_refused(key: str, objects: ObjectStore, tmp_path: Path) -> None:
    for call in (
        lambda: objects.put(key, b""),
        lambda: objects.get(key),
        lambda: objects.get_file(key, tmp_path / "copy"),
        lambda: objects.local_path(key),
        lambda: objects.size(key),
        lambda: objects.delete(key),
        lambda: objects.signed_url(key, 60),
    ):
        with pytest.raises(InvalidRequest, match="object key"):
            call()


def test_a_signed_url_needs_no_credentials(objects: ObjectStore) -> None:
    objects.put("a", b"signed")
    url = objects.signed_url("a", 60)
    if isinstance(objects, S3ObjectStore):
        assert url is not None
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"signed"
    else:
        assert url is None  # they serve no HTTP


def test_a_local_object_is_read_in_place(tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path)
    objects.put("a/b", b"x")
    path = objects.local_path("a/b")
    assert path is not None
    assert path.read_bytes() == b"x"


def test_a_put_that_fails_leaves_nothing(tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path)
    objects.put("a", b"old")
    with pytest.raises(FileNotFoundError):
        objects.put_file("a", tmp_path / "missing")
    with pytest.raises(TypeError):
        objects.put("a", "text")  # type: ignore[arg-type]
    assert objects.get("a") == b"old"
    assert not list((tmp_path / ".tmp").iterdir())


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    LocalObjectStore(tmp_path)
    for name, hours in (("old", 25), ("young", 23)):
        path = tmp_path / ".tmp" / name
        path.write_bytes(b"half")
        age = path.stat().st_mtime - hours * 3600
        os.utime(path, (age, age))
    LocalObjectStore(tmp_path)
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == ["young"]


def test_deleting_and_putting_in_one_folder_at_once(tmp_path: Path) -> None:
    """delete() takes empty folders away; a put into the same folder must not stumble over that."""
    objects = LocalObjectStore(tmp_path)

    def churn(name: str) -> None:
        for _ in range(100):
            objects.put(f"shared/{name}", b"x")
            objects.delete(f"shared/{name}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(churn, ["a", "b", "c"]))
    assert list(objects.list("")) == []


def test_wrong_credentials_and_no_server_are_told_apart(s3: S3, s3_url: str) -> None:
    wrong = open_object_store(s3_url, access_key=s3.access_key, secret_key="wrong")
    with pytest.raises(Unavailable, match="credentials"):
        wrong.put("a", b"")
    gone = open_object_store("s3://bucket?endpoint=http://127.0.0.1:9", access_key="a", secret_key="b")
    for call in (lambda: gone.get("a"), lambda: gone.put("a", b"")):
        with pytest.raises(Unavailable, match="endpoint"):
            call()


def test_urls_name_adapters(tmp_path: Path) -> None:
    local = open_object_store(f"file://{tmp_path}/with%20space")
    assert isinstance(local, LocalObjectStore)
    assert local.root == tmp_path / "with space"
    assert isinstance(open_object_store("memory://"), MemoryObjectStore)
    s3 = open_object_store("s3://bucket/some/prefix?endpoint=https://host:9000")
    assert isinstance(s3, S3ObjectStore)
    assert s3.bucket == "bucket"


@pytest.mark.parametrize(
    "url", ["", "file://relative/path", "s3://bucket", "s3://?endpoint=http://h", "gs://b"]
)
def test_other_urls_are_refused_with_the_known_forms(url: str) -> None:
    with pytest.raises(InvalidRequest, match="file:///path"):
        open_object_store(url)
